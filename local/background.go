package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/internal/sandbox"
)

// Files beside a cluster's state, in the directory above it: they must outlive the state's removal.
func pidFile(state string) string { return strings.TrimSuffix(state, "/") + ".pid" }

// logFile is what a cluster says, in its state directory.
const logFile = "cluster.log"

// Spawn starts a cluster in a process of its own that goes on when this one ends, by running the command line args of
// this binary again, and waits until it is up.
func Spawn(ctx context.Context, state string, args []string) error {
	if s := Running(state); s.PID != 0 {
		return fmt.Errorf("a local cluster is already running (process %d)", s.PID)
	}
	if err := os.MkdirAll(filepath.Dir(state), 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	logPath := state + ".log"
	out, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), cmd.Process.Signal(syscall.SIGTERM), <-ended)
		case err := <-ended:
			b, rerr := os.ReadFile(logPath)
			if rerr != nil {
				return errors.Join(err, rerr)
			}
			return fmt.Errorf("the cluster did not come up: %s", strings.TrimSpace(strings.TrimPrefix(string(b), "Error: ")))
		case <-tick.C:
			if s := Running(state); s.PID == cmd.Process.Pid {
				return nil
			}
		}
	}
}

// Hold keeps a cluster until it ends or ctx does, with a file by which Running and Down find this process.
func Hold(ctx context.Context, state string, cl *Cluster) error {
	claim, err := claimPID(state)
	if err != nil {
		return errors.Join(err, cl.Close())
	}
	defer claim.Close()
	select {
	case <-ctx.Done():
		err = cl.Close()
	case <-cl.Done():
		err = errors.Join(errors.New("the cluster ended by itself"), cl.Close())
	}
	return errors.Join(err, os.Remove(pidFile(state)))
}

// claimPID writes this process's number into the file, which it locks: the kernel forgets a lock with its process, but
// gives a number to another process later.
func claimPID(state string) (*os.File, error) {
	f, err := os.OpenFile(pidFile(state), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s, perhaps another local cluster holds it: %w", f.Name(), err), f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteString(strconv.Itoa(os.Getpid()))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// State of a background cluster.
type State struct {
	// PID of the process that holds it; 0 when none runs.
	PID     int
	Ingress string
}

// Running finds the background cluster of a state directory.
func Running(state string) State {
	f, err := os.Open(pidFile(state))
	if err != nil {
		return State{}
	}
	defer f.Close()
	held := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &held); err != nil || held.Type == unix.F_UNLCK {
		return State{} // left by one that crashed; its namespaces died with it
	}
	b, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return State{}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return State{} // not yet written
	}
	s := State{PID: pid}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if url, err := client.New(state).IngressURL(ctx); err == nil {
		s.Ingress = url
	}
	return s
}

// downTimeout bounds how long a cluster may take to end.
const downTimeout = 30 * time.Second

// Down ends the background cluster of a state directory and removes what is left of it.
func Down(ctx context.Context, state string) error {
	s := Running(state)
	if s.PID == 0 {
		return clean(state)
	}
	if err := syscall.Kill(s.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end the cluster (process %d): %w", s.PID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for Running(state).PID != 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster (process %d) does not end: %w", s.PID, ctx.Err())
		case <-tick.C:
		}
	}
	return clean(state)
}

// clean removes the files of a cluster that does not run. Only a directory that is marked as ours is touched.
func clean(state string) error {
	var errs []error
	if _, err := os.Stat(filepath.Join(state, sandbox.Marker)); err == nil {
		errs = append(errs, os.RemoveAll(state))
	}
	for _, f := range []string{pidFile(state), state + ".log"} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
