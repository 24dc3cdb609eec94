// Package sandbox keeps a whole local cluster in namespaces that end with one process.
//
// The outer process stays in the machine's namespaces; the inner one, made by running the same binary again, is PID 1
// of a new PID namespace with mounts, network, host name and IPC of its own. When it dies, for whatever reason, the
// kernel ends every process, interface, rule and mount inside. Nothing outside is touched but the state directory.
package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Name is what the binary is called by (argument 0) when it is to be the inner process.
const Name = "ambit-sandbox"

// Config says what to start.
type Config struct {
	// State is the directory that inside and outside share: objects, logs, sockets. Absolute. It must be new, empty or
	// an earlier sandbox's.
	State string
	// Keep leaves the state directory when the sandbox ends. Default: it is removed.
	Keep bool
	// Args are the inner process's arguments, which the function given to Main receives.
	Args []string
	// Output receives what the inner process writes to its standard output and error. Default: nothing.
	Output *os.File
	// Grace is how long the inside may take to end in order. Default 10s.
	Grace time.Duration
	Log   *slog.Logger
}

// Sandbox is the outer end.
type Sandbox struct {
	conf  Config
	cmd   *exec.Cmd
	lock  *os.File
	life  *os.File // closed: the inside ends
	ready chan struct{}
	done  chan struct{}
	err   error // set before done is closed
}

// Start makes the namespaces and the inner process in them. Close must follow.
func Start(c Config) (*Sandbox, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	lock, err := claim(c.State)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{conf: c, lock: lock, ready: make(chan struct{}), done: make(chan struct{})}
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the sandbox: %w", err), s.release())
	}
	return s, nil
}

func (s *Sandbox) start() error {
	lifeIn, lifeOut, err := os.Pipe()
	if err != nil {
		return err
	}
	defer lifeIn.Close()
	readyIn, readyOut, err := os.Pipe()
	if err != nil {
		return errors.Join(err, lifeOut.Close())
	}
	defer readyOut.Close()
	s.life = lifeOut
	s.cmd = exec.Command("/proc/self/exe", s.conf.Args...)
	s.cmd.Args[0] = Name
	s.cmd.ExtraFiles = []*os.File{lifeIn, readyOut} // descriptors 3 and 4
	if s.conf.Output != nil {
		s.cmd.Stdout, s.cmd.Stderr = s.conf.Output, s.conf.Output
	}
	s.cmd.SysProcAttr = namespaces()
	started := make(chan error, 1)
	go func() {
		// The kernel kills the inner process with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.err = s.cmd.Wait()
			close(s.done)
		}
	}()
	if err := <-started; err != nil {
		return errors.Join(err, readyIn.Close(), lifeOut.Close())
	}
	go func() {
		defer readyIn.Close()
		if b, _ := io.ReadAll(readyIn); len(b) > 0 {
			close(s.ready)
		}
	}()
	return nil
}

// namespaces are those of the inner process. Root does without a user namespace: then what it may do does not depend
// on the machine's settings for ordinary users. A root whose capabilities were taken away counts as ordinary.
func namespaces() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true, // Ctrl-C reaches the outer process alone, which ends the inside in order
		Pdeathsig:  syscall.SIGKILL,
	}
	if !needsUserNamespace() {
		return attr
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	return attr
}

func needsUserNamespace() bool {
	if os.Geteuid() != 0 {
		return true
	}
	caps, err := capabilities()
	return err != nil || caps&wantedCaps != wantedCaps
}

// Done is closed when the inner process has ended; nothing of the inside lives any more.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// PID is the inner process as the machine sees it.
func (s *Sandbox) PID() int { return s.cmd.Process.Pid }

// Wait blocks until the inside is ready; it is an error if it ends or ctx ends before.
func (s *Sandbox) Wait(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-s.done:
		return fmt.Errorf("the sandbox ended before it was ready: %w", cmp.Or(s.err, errors.New("exit status 0")))
	case <-ctx.Done():
		return fmt.Errorf("wait for the sandbox: %w", context.Cause(ctx))
	}
}

// Close ends the inside, in order if it can within Grace, and removes the state directory unless it is to be kept.
func (s *Sandbox) Close() error {
	errs := []error{s.life.Close()}
	timer := time.NewTimer(s.conf.Grace)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		s.conf.Log.Warn("sandbox does not end, killing it", "grace", s.conf.Grace)
		if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, fmt.Errorf("kill the sandbox: %w", err))
		}
		<-s.done
	}
	return errors.Join(append(errs, s.release())...)
}

// release gives up the state directory.
func (s *Sandbox) release() error {
	var err error
	if !s.conf.Keep {
		if err = os.RemoveAll(s.conf.State); err != nil {
			err = fmt.Errorf("remove the state directory: %w", err)
		}
	}
	return errors.Join(err, s.lock.Close())
}

// Marker is the file by which a state directory is known as ours; it is locked while a sandbox uses it.
const Marker = ".ambit-state"

// ErrBusy means that another sandbox uses the state directory.
var ErrBusy = errors.New("another local cluster is running there")

// claim makes the state directory and locks it. It refuses a directory that holds other things, as it would be removed.
func claim(dir string) (*os.File, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("state directory %q is not an absolute path", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	path := filepath.Join(dir, Marker)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("read the state directory: %w", err)
		}
		if len(entries) > 0 {
			return nil, fmt.Errorf("%s holds other things (%s): give a new or empty directory for the state", dir, entries[0].Name())
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("mark the state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // the error that counts is the lock's
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("use %s: %w", dir, ErrBusy)
		}
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	return f, nil
}
