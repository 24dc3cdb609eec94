// Package netnstest runs kernel tests in a user, mount and network namespace of their own.
//
// A test package says so in its TestMain; each kernel test then starts with Need:
//
//	func TestMain(m *testing.M) { netnstest.Main(m) }
//	func TestKernel(t *testing.T) { netnstest.Need(t); ... }
package netnstest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
)

// stateEnv tells the second run that it is inside ("inside"), or why that was impossible.
const stateEnv = "AMBIT_NETNSTEST"

// Main runs the tests of a package inside fresh namespaces by starting the test binary again, and exits.
// Where the machine cannot do it the tests run outside, and Need skips those that cannot.
// A fuzzing run stays outside: its workers hold descriptors of their own.
func Main(m *testing.M) {
	flag.Parse()
	if os.Getenv(stateEnv) == "inside" {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "netnstest:", err)
			os.Exit(1)
		}
		os.Exit(runAll(m))
	}
	if fuzzing() {
		os.Exit(runOutside(m, "fuzzing runs outside a network namespace"))
	}
	code, err := again()
	if err != nil {
		os.Exit(runOutside(m, err.Error()))
	}
	os.Exit(code)
}

// Need skips the test, with the reason, where no namespace could be made.
func Need(t testing.TB) {
	t.Helper()
	if state := os.Getenv(stateEnv); state != "inside" {
		if state == "" {
			t.Fatal("netnstest.Need without netnstest.Main in TestMain")
		}
		t.Skip("needs a user and network namespace of its own: " + state)
	}
}

// New makes an empty network namespace with loopback up that ends with the test.
func New(t testing.TB) *netns.Namespace {
	t.Helper()
	Need(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := link.Up(ns, "lo"); err != nil {
		t.Fatal(err)
	}
	return ns
}

func fuzzing() bool {
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" && f.Value.String() != "false" {
			return true
		}
	}
	return false
}

func runOutside(m *testing.M, why string) int {
	if err := os.Setenv(stateEnv, strings.ReplaceAll(why, "\x00", "")); err != nil {
		fmt.Fprintln(os.Stderr, "netnstest:", err)
		return 1
	}
	return runAll(m)
}

// runAll runs the tests, which must leave no goroutine behind.
func runAll(m *testing.M) int {
	code := m.Run()
	if code != 0 || fuzzing() {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "netnstest: the tests left goroutines behind:", err)
		return 1
	}
	return code
}

// again runs this binary with the same arguments in new namespaces. An error means that none could be made.
func again() (code int, err error) {
	attempts := []syscall.SysProcAttr{{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}}
	if os.Getuid() == 0 { // root where user namespaces are forbidden
		attempts = append(attempts, syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS})
	}
	runtime.LockOSThread() // the child dies with the thread that started it
	defer runtime.UnlockOSThread()
	for _, attr := range attempts {
		attr.Pdeathsig = syscall.SIGKILL
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Args[0] = os.Args[0]
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), stateEnv+"=inside")
		cmd.SysProcAttr = &attr
		if e := cmd.Start(); e != nil {
			err = errors.Join(err, fmt.Errorf("make namespaces %#x: %w", attr.Cloneflags, e))
			continue
		}
		return wait(cmd), nil
	}
	return 0, err
}

// wait passes signals on, so that the go command's timeout reaches the tests, and gives the exit status.
func wait(cmd *exec.Cmd) int {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended
		}
	}()
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if exit.ExitCode() < 0 {
			return 1 // ended by a signal
		}
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "netnstest:", err)
		return 1
	}
	return 0
}

// prepare keeps our mounts to ourselves and brings up loopback.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return link.Up(nil, "lo")
}
