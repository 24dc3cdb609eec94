package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
	"github.com/ambit-mesh/ambit/local/internal/sandbox"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// serveExec runs programs in containers for clients of the machine, on the clients' own standard streams.
func (c *inside) serveExec(ctx context.Context) error {
	l, err := sandbox.ListenUnix(filepath.Join(c.State, client.ExecSocket))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("exec: %w", err)
		}
		wg.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			var answer client.ExecResult
			if code, err := c.exec(conn); err != nil {
				answer.Error = err.Error()
			} else {
				answer.Code = code
			}
			if err := json.NewEncoder(conn).Encode(answer); err != nil && ctx.Err() == nil {
				c.log.Debug("exec: client left before the answer", "error", err)
			}
		})
	}
}

// exec reads one request, runs its program and gives the exit status. The program dies with the client.
func (c *inside) exec(conn *net.UnixConn) (int, error) {
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	req, files, err := client.ReceiveExec(conn)
	if err != nil {
		return 0, err
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	pod, err := store.Get[*corev1.Pod](c.store, req.Namespace, req.Pod)
	if err != nil {
		return 0, err
	}
	k, err := c.kubeletOf(pod)
	if err != nil {
		return 0, err
	}
	container, err := k.Container(req.Namespace, req.Pod, req.Container)
	if err != nil {
		return 0, err
	}
	cmd, err := container.Exec(runtime.Command{Argv: req.Argv, Env: req.Env, Files: files, TTY: req.TTY})
	if err != nil {
		return 0, err
	}
	go signals(conn, cmd)
	return status(cmd.Wait())
}

// signals passes the client's signals on until it goes away, which kills the program.
func signals(conn *net.UnixConn, cmd *exec.Cmd) {
	in := json.NewDecoder(conn)
	for {
		var s client.ExecSignal
		if err := in.Decode(&s); err != nil {
			kill(cmd, syscall.SIGKILL)
			return
		}
		kill(cmd, syscall.Signal(s.Signal))
	}
}

// kill signals a program and what it started in its process group, as a terminal does. One that has ended is no trouble.
func kill(cmd *exec.Cmd, s syscall.Signal) {
	if cmd.Process.Signal(s) == nil {
		_ = syscall.Kill(-cmd.Process.Pid, s)
	}
}

// status reads how a program ended; 128 and the signal for one that was killed, as shells do.
func status(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return exit.ExitCode(), nil
	case errors.Is(err, os.ErrProcessDone):
		return 0, nil
	}
	return 0, err
}
