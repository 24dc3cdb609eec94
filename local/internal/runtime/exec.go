package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/local/internal/runtime/view"
)

// Command is a program to run in a running container.
type Command struct {
	Argv  []string
	Env   []string   // beside the container's own
	Files []*os.File // standard input, output and error; nil ones are /dev/null
	TTY   bool       // Files[0] is a terminal that the program is to control
}

// ErrNotRunning means that a container has ended.
var ErrNotRunning = errors.New("the container is not running")

// Exec starts a program with the container's file system, network, processes and environment. The caller waits for it.
func (c *Container) Exec(p Command) (*exec.Cmd, error) {
	if len(p.Argv) == 0 {
		return nil, errors.New("run in the container: no command given")
	}
	spaces, err := c.namespaces()
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range spaces {
			_ = f.Close() // read only
		}
	}()
	env := withDefaults(append(append([]string{}, c.conf.Env...), p.Env...), c.pod.conf.Hostname)
	var cmd *exec.Cmd
	done := make(chan error, 1)
	go func() {
		// The thread enters the container for good and ends with this goroutine.
		goruntime.LockOSThread()
		cmd, err = enter(spaces, c.conf, env, p)
		done <- err
	}()
	if err := <-done; err != nil {
		return nil, err
	}
	return cmd, nil
}

// order in which namespaces are entered: the file system last, as the others are opened already.
var _ = order

func order() []string { return []string{"net", "uts", "pid", "mnt"} }

// namespaces opens those of the container's first process.
func (c *Container) namespaces() ([]*os.File, error) {
	if c.ended() {
		return nil, ErrNotRunning
	}
	var all []*os.File
	for _, kind := range order() {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", c.PID(), kind))
		if err != nil {
			for _, f := range all {
				_ = f.Close() // read only
			}
			return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
		}
		all = append(all, f)
	}
	return all, nil
}

func enter(spaces []*os.File, conf ContainerConfig, env []string, p Command) (*exec.Cmd, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("enter the container: %w", err)
	}
	for i, f := range spaces {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return nil, fmt.Errorf("enter the container's %s namespace: %w", order()[i], err)
		}
	}
	path, err := view.Look(p.Argv[0], env)
	if err != nil {
		return nil, fmt.Errorf("run in the container: %w", err)
	}
	if err := conf.Caps.Confine(); err != nil {
		return nil, fmt.Errorf("enter the container: %w", err)
	}
	cmd := &exec.Cmd{Path: path, Args: p.Argv, Env: env, Dir: cmp.Or(conf.Dir, "/"), SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	files := append(append([]*os.File{}, p.Files...), nil, nil, nil)
	if files[0] != nil {
		cmd.Stdin = files[0]
		cmd.SysProcAttr.Setctty = p.TTY
	}
	if files[1] != nil {
		cmd.Stdout = files[1]
	}
	if files[2] != nil {
		cmd.Stderr = files[2]
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run in the container: %w", err)
	}
	return cmd, nil
}
