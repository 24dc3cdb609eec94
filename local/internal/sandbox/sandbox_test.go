package sandbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/sandbox"
)

// outer is what the test binary is called by when it plays the program that starts a sandbox and is killed.
const outer = "test-outer"

func TestMain(m *testing.M) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	switch {
	case sandbox.Inside():
		os.Exit(sandbox.Main(log, inside))
	case sandbox.Probing():
		os.Exit(sandbox.ProbeMain())
	case os.Args[0] == outer:
		s, err := sandbox.Start(sandbox.Config{State: os.Args[1], Args: []string{os.Args[1]}, Output: os.Stderr})
		if err == nil {
			err = s.Wait(context.Background())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(s.PID())
		select {}
	}
	os.Exit(m.Run())
}

// inside builds a network, leaves a process running and says what it sees.
func inside(ctx context.Context, in *sandbox.Inner) error {
	state := in.Args[0]
	w, err := network.Build(network.Config{Nodes: []string{"n1", "n2"}, Family: network.Dual})
	if err != nil {
		return err
	}
	if err := exec.Command("sleep", "1000").Start(); err != nil {
		return err
	}
	n1, _ := w.Node("n1")
	l, err := n1.Listen(ctx, "tcp", "0.0.0.0:7")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	n2, _ := w.Node("n2")
	if err := os.WriteFile(filepath.Join(state, "seen"), fmt.Appendf(nil, "pid %d uid %d", os.Getpid(), os.Getuid()), 0o600); err != nil {
		return err
	}
	relay := make(chan error, 1)
	go func() {
		relay <- sandbox.ServeRelay(ctx, state, func(ctx context.Context, to string) (net.Conn, error) { return n2.Dial(ctx, "tcp", to) })
	}()
	for { // the relay's socket is there before anybody is told
		if _, err := os.Stat(filepath.Join(state, "relay.sock")); err == nil {
			break
		}
		select {
		case err := <-relay:
			return err
		case <-time.After(time.Millisecond):
		}
	}
	if err := in.Ready(); err != nil {
		return err
	}
	return <-relay
}

func need(t *testing.T) {
	t.Helper()
	if problems := sandbox.Preflight(t.Context()); len(problems) > 0 {
		t.Skipf("this machine cannot run a local cluster: %v", problems)
	}
}

func TestConnectionsOfTheMachineReachTheInside(t *testing.T) {
	need(t)
	state := filepath.Join(t.TempDir(), strings.Repeat("long", 25), "state") // longer than a socket's path may be
	s, err := sandbox.Start(sandbox.Config{State: state, Args: []string{state}, Output: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Wait(ctx); err != nil {
		t.Fatal(errors.Join(err, s.Close()))
	}
	if b, err := os.ReadFile(filepath.Join(state, "seen")); err != nil || string(b) != "pid 1 uid 0" {
		t.Errorf("the inside is %q (%v), want pid 1 uid 0", b, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	forwarded := make(chan error, 1)
	fctx, stop := context.WithCancel(ctx)
	go func() { forwarded <- s.Forward(fctx, l, "10.89.0.11:7") }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("echo through the relay: %q, %v", b, err)
	}
	if _, err := sandbox.Start(sandbox.Config{State: state}); !errors.Is(err, sandbox.ErrBusy) {
		t.Errorf("a second sandbox on the state directory: %v, want %v", err, sandbox.ErrBusy)
	}
	stop()
	<-forwarded
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory is still there: %v", err)
	}
}

func TestNothingSurvivesAKilledOuterProcess(t *testing.T) {
	need(t)
	state := filepath.Join(t.TempDir(), "state")
	cmd := exec.Command("/proc/self/exe", state)
	cmd.Args[0] = outer
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(errors.Join(err, cmd.Wait()))
	}
	inner, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	pids := tree(t, inner)
	if len(pids) < 2 {
		t.Fatalf("the sandbox has processes %v, want the inner one and sleep", pids)
	}
	var fds []int
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for i, fd := range fds {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		}
		if err != nil || n != 1 {
			t.Errorf("process %d survived: poll %d, %v", pids[i], n, err)
		}
	}
	_ = cmd.Wait() // killed
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), state) {
		t.Error("mounts of the sandbox are left on the machine")
	}
}

// tree is a process and its descendants.
func tree(t *testing.T, pid int) []int {
	t.Helper()
	all := []int{pid}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, tree(t, child)...)
		}
	}
	return all
}

func TestForeignDirectoryIsNotTaken(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sandbox.Start(sandbox.Config{State: dir}); err == nil || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("Start on a directory with other things = %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "thesis.tex")); err != nil {
		t.Error(err)
	}
}
