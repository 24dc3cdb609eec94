package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/local/internal/runtime/caps"
	"github.com/ambit-mesh/ambit/local/internal/runtime/view"
)

// ContainerConfig says what to run.
type ContainerConfig struct {
	Name   string
	Argv   []string
	Env    []string // NAME=value; PATH and HOSTNAME are added if missing
	Dir    string
	Mounts []view.Mount
	// Caps are the container's capabilities; none by default.
	Caps caps.Set
	// Log is the file that output is appended to; it is rotated.
	Log string
}

// Exit is how a container ended.
type Exit struct {
	Code     int // 128 + the signal's number if a signal ended it
	Signal   int
	Started  time.Time
	Finished time.Time
}

// Container is a running or ended process of a pod.
type Container struct {
	Name    string
	ID      string
	Started time.Time
	conf    ContainerConfig
	pod     *Pod
	cmd     *exec.Cmd
	log     *logFile
	done    chan struct{}

	mu   sync.Mutex // guards below
	exit Exit       // set before done is closed
}

// ErrPodGone means that the pod was taken down meanwhile.
var ErrPodGone = errors.New("the pod is being taken down")

// Start runs a container in the pod.
func (p *Pod) Start(c ContainerConfig) (*Container, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrPodGone
	}
	log, err := p.r.openLog(c.Log)
	if err != nil {
		return nil, err
	}
	c.Env = withDefaults(c.Env, p.conf.Hostname)
	spec := view.Spec{
		Mounts: append(p.r.mounts(), c.Mounts...), Files: p.etc(), Links: p.r.links(), Hostname: p.conf.Hostname,
		Hidden: p.r.hidden(), Caps: c.Caps, Argv: c.Argv, Env: c.Env, Dir: c.Dir,
	}
	cmd, err := view.Start(view.Process{Spec: spec, NS: p.ns, OwnPIDs: true, Stdout: log.stdout(), Stderr: log.stderr()})
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	started := time.Now()
	k := &Container{
		Name: c.Name, ID: fmt.Sprintf("%s-%s-%d", p.ID[:12], c.Name, started.UnixNano()), Started: started, conf: c, pod: p, cmd: cmd, log: log, done: make(chan struct{}),
	}
	p.containers = append(slices.DeleteFunc(p.containers, (*Container).ended), k)
	go k.wait()
	return k, nil
}

func (c *Container) wait() {
	_ = c.cmd.Wait() // the state says all of it
	e := Exit{Started: c.Started, Finished: time.Now()}
	if ws, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = int(ws.Signal())
		e.Code = 128 + e.Signal
	} else {
		e.Code = c.cmd.ProcessState.ExitCode()
	}
	if err := c.log.Close(); err != nil {
		c.pod.r.conf.Log.Warn("close the log of a container", "container", c.Name, "error", err)
	}
	c.mu.Lock()
	c.exit = e
	c.mu.Unlock()
	close(c.done)
}

// Done is closed when the container has ended.
func (c *Container) Done() <-chan struct{} { return c.done }

// Exit is how it ended, after Done.
func (c *Container) Exit() Exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exit
}

// PID is the container's first process as the sandbox sees it.
func (c *Container) PID() int { return c.cmd.Process.Pid }

func (c *Container) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Stop asks the container to end and ends it after grace.
func (c *Container) Stop(ctx context.Context, grace time.Duration) {
	if c.ended() {
		return
	}
	if grace > 0 && handlesTerm(c.PID()) {
		_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-c.done:
			return
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.done
}

// handlesTerm tells whether a process does something at SIGTERM. As process 1 of its namespace it is not ended by the
// signal unless it handles it: a program that left the signal alone meant to be ended, and need not be waited for.
func handlesTerm(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && mask&(1<<(unix.SIGTERM-1)) != 0
		}
	}
	return false
}

func withDefaults(env []string, hostname string) []string {
	out := []string{"PATH=" + DefaultPath, "HOSTNAME=" + hostname, "HOME=/tmp"}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if name == "PATH" && !slices.Contains(filepath.SplitList(value), AppletDir) {
			e += ":" + AppletDir // programs that the image would have and the machine has not
		}
		out = slices.DeleteFunc(out, func(x string) bool { return strings.HasPrefix(x, name+"=") })
		out = append(out, e)
	}
	return out
}
