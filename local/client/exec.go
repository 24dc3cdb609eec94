package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// ExecSocket is where programs are started in containers, in a cluster's state directory.
const ExecSocket = "exec.sock"

// maxExec bounds a request.
const maxExec = 256 << 10

// ExecRequest asks for a program in a container. Its standard streams travel beside it as descriptors.
type ExecRequest struct {
	Namespace, Pod string
	// Container of the pod; "" is its first.
	Container string
	Argv, Env []string
	// TTY says that the standard input is a terminal that the program is to control.
	TTY bool
}

// ExecSignal passes a signal to the program.
type ExecSignal struct{ Signal int }

// ExecResult is how it ended.
type ExecResult struct {
	Code  int
	Error string
}

// ErrInterrupted means that the program did not end when it was asked to, and was killed at the second one.
var ErrInterrupted = errors.New("interrupted twice: the program was killed")

// Exec runs a program in a container on the given streams and gives its exit status. Signals of this process are passed
// on; at the second that asks it to end, and when ctx ends, the program is killed.
func (c *Client) Exec(ctx context.Context, req ExecRequest, stdin, stdout, stderr *os.File) (int, error) {
	d, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(c.dir, ExecSocket))
	if err != nil {
		return 0, c.away(err)
	}
	defer d.Close()
	conn := d.(*net.UnixConn)
	b, err := json.Marshal(req)
	if err != nil {
		return 0, err
	}
	if len(b) > maxExec {
		return 0, fmt.Errorf("command of %d bytes, at most %d fit", len(b), maxExec)
	}
	rights := syscall.UnixRights(int(stdin.Fd()), int(stdout.Fd()), int(stderr.Fd()))
	if _, _, err := conn.WriteMsgUnix(append(b, '\n'), rights, nil); err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	caught := make(chan os.Signal, 4)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(caught)
	done := make(chan struct{})
	defer close(done)
	go func() {
		out := json.NewEncoder(conn)
		for interrupts := 0; ; {
			select {
			case <-done:
				return
			case s := <-caught:
				if s != syscall.SIGQUIT {
					interrupts++
				}
				if interrupts > 1 {
					leave(ErrInterrupted)
					return
				}
				if sig, ok := s.(syscall.Signal); ok && out.Encode(ExecSignal{int(sig)}) != nil {
					return
				}
			}
		}
	}()
	var r ExecResult
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, fmt.Errorf("exec: the cluster went away: %w", err)
	}
	if r.Error != "" {
		return 0, errors.New(r.Error)
	}
	return r.Code, nil
}

// ReceiveExec reads a request and its three streams, for the other end.
func ReceiveExec(conn *net.UnixConn) (ExecRequest, []*os.File, error) {
	var req ExecRequest
	oob := make([]byte, syscall.CmsgSpace(3*4))
	text := make([]byte, 0, 4096)
	var files []*os.File
	fail := func(err error) (ExecRequest, []*os.File, error) {
		for _, f := range files {
			f.Close()
		}
		return req, nil, fmt.Errorf("exec request: %w", err)
	}
	for len(text) == 0 || text[len(text)-1] != '\n' {
		b := make([]byte, 32<<10)
		n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fail(err)
		}
		got, err := descriptors(oob[:oobn])
		files = append(files, got...)
		if err != nil {
			return fail(err)
		}
		if text = append(text, b[:n]...); len(text) > maxExec {
			return fail(errors.New("it is too long"))
		}
	}
	if err := json.Unmarshal(text, &req); err != nil {
		return fail(err)
	}
	if len(files) != 3 {
		return fail(fmt.Errorf("it brings %d streams, want 3", len(files)))
	}
	return req, files, nil
}

func descriptors(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "stream"))
		}
	}
	return files, nil
}
