package client

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cluster answers one exec request by a program of the machine, as the cluster does in a container.
func cluster(t *testing.T) *Client {
	t.Helper()
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, ExecSocket), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		req, files, err := ReceiveExec(conn)
		if err != nil {
			t.Error(err)
			return
		}
		cmd := exec.Command(req.Argv[0], req.Argv[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: req.TTY}
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		_ = cmd.Wait() // its state says all
		for _, f := range files {
			f.Close()
		}
		if err := json.NewEncoder(conn).Encode(ExecResult{Code: cmd.ProcessState.ExitCode()}); err != nil {
			t.Error(err)
		}
	}()
	return New(dir)
}

func TestTerminalIsTheProgramsAndComesBack(t *testing.T) {
	if _, err := exec.LookPath("stty"); err != nil {
		t.Skip("this machine has no stty")
	}
	c := cluster(t)
	person, screen, err := OpenTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	defer screen.Close()
	size := func(rows, cols uint16) {
		if err := unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
			t.Fatal(err)
		}
	}
	size(40, 100)
	mode := func() unix.Termios {
		m, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return *m
	}
	before := mode()

	var said strings.Builder
	await := func(words string) {
		t.Helper()
		if err := person.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 256)
		for !strings.Contains(said.String(), words) {
			n, err := person.Read(b)
			if err != nil {
				t.Fatalf("waiting for %q: %v; the screen shows %q", words, err, said.String())
			}
			said.Write(b[:n])
		}
	}
	typed := func(keys string) {
		t.Helper()
		if _, err := person.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}

	type end struct {
		code int
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		code, err := c.ExecTerminal(t.Context(), ExecRequest{Argv: []string{"sh", "-c", `
			stty size; read -r x; echo "got $x"
			trap 'echo interrupted' INT; trap 'stty size; exit 7' WINCH
			echo looping; while :; do sleep 0.02; done`}}, screen, screen)
		ended <- end{code, err}
	}()
	await("40 100")
	if m := mode(); m.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Errorf("the terminal is not raw: mode %x", m.Lflag)
	}
	typed("hello\r")
	await("got hello")
	await("looping")
	typed("\x03")
	await("interrupted")
	size(50, 120)
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil { // as the kernel does for a terminal of one's own
		t.Fatal(err)
	}
	await("50 120")
	if e := <-ended; e.code != 7 || e.err != nil {
		t.Errorf("exit status %d, %v, want 7", e.code, e.err)
	}
	if after := mode(); after != before {
		t.Errorf("the terminal's mode is %+v, was %+v", after, before)
	}
}
