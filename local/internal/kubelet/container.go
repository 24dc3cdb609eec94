package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/internal/images"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
	"github.com/ambit-mesh/ambit/local/internal/runtime/view"
)

// container is one of a pod's, over its restarts.
type container struct {
	w    *worker
	spec corev1.Container
	init bool

	mu         sync.Mutex // guards below
	run        *runtime.Container
	attempt    int // how often it was restarted
	tried      bool
	last       *runtime.Exit // of the run before
	lastKilled string        // why kubelet ended that one
	waiting    string        // reason
	message    string
	started    bool // its startup probe succeeded, or it has none
	ready      bool
	killed     string // why kubelet ended this run
	finished   bool   // it will not be started again
}

func (c *container) running() *runtime.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil {
		return nil
	}
	select {
	case <-c.run.Done():
		return nil
	default:
		return c.run
	}
}

// set changes the container's state and tells the cluster.
func (c *container) set(f func()) {
	c.mu.Lock()
	f()
	c.mu.Unlock()
	c.w.publish()
}

// keep runs the container as its pod's restart policy says, until ctx ends.
func (c *container) keep(ctx context.Context, vols *volumes) {
	policy := c.w.pod().Spec.RestartPolicy
	if c.init {
		policy = corev1.RestartPolicyAlways
	}
	backoff := c.w.k.conf.Backoff
	for n := 0; ; n++ {
		exit, err := c.once(ctx, vols)
		if ctx.Err() != nil {
			return
		}
		again := policy == corev1.RestartPolicyAlways || policy == "" || policy == corev1.RestartPolicyOnFailure && (err != nil || exit.Code != 0)
		if err == nil && !again {
			c.set(func() { c.finished = true })
			return
		}
		if err == nil && exit.Finished.Sub(exit.Started) > 10*time.Minute {
			n, backoff = 0, c.w.k.conf.Backoff
		}
		if err == nil && n == 0 {
			continue // the first time at once
		}
		if err == nil {
			c.set(func() {
				c.waiting, c.message = "CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", backoff, c.spec.Name, c.w.pod().Name)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
			backoff = min(backoff*2, c.w.k.conf.BackoffMost)
		}
	}
}

// complete runs an init container until it has succeeded.
func (c *container) complete(ctx context.Context, vols *volumes) error {
	backoff := c.w.k.conf.Backoff
	for {
		exit, err := c.once(ctx, vols)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && exit.Code == 0 {
			c.set(func() { c.finished = true })
			return nil
		}
		if err == nil && c.w.pod().Spec.RestartPolicy == corev1.RestartPolicyNever {
			c.set(func() { c.finished = true })
			return fmt.Errorf("init container %s failed with exit code %d", c.spec.Name, exit.Code)
		}
		if err == nil {
			c.set(func() {
				c.waiting, c.message = "CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container", backoff)
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(backoff):
			backoff = min(backoff*2, c.w.k.conf.BackoffMost)
		}
	}
}

// once starts the container, probes it, and waits for its end. An error means that it could not start.
func (c *container) once(ctx context.Context, vols *volumes) (runtime.Exit, error) {
	run, err := c.start(vols)
	if err != nil {
		reason := "CreateContainerConfigError"
		switch {
		case errors.Is(err, images.ErrNotAvailable):
			reason = "ErrImageNotAvailable"
		case errors.Is(err, view.ErrNoProgram), errors.Is(err, os.ErrPermission):
			reason = "RunContainerError"
		}
		c.mu.Lock()
		same := c.waiting == reason && c.message == err.Error()
		c.mu.Unlock()
		if !same {
			c.w.event(corev1.EventTypeWarning, "Failed", err.Error())
			c.set(func() { c.waiting, c.message = reason, err.Error() })
		}
		return runtime.Exit{}, err
	}
	probing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { c.probes(probing, run) })
	if h := c.spec.Lifecycle; h != nil && h.PostStart != nil {
		if err := c.hook(ctx, h.PostStart); err != nil {
			c.w.event(corev1.EventTypeWarning, "FailedPostStartHook", err.Error())
			run.Stop(ctx, c.w.grace())
		}
	}
	<-run.Done()
	stop()
	wg.Wait()
	exit := run.Exit()
	c.set(func() { c.last, c.lastKilled, c.ready, c.started = &exit, c.killed, false, false })
	return exit, nil
}

func (c *container) start(vols *volumes) (*runtime.Container, error) {
	pod := c.w.pod()
	program, err := images.Resolve(images.Container{Image: c.spec.Image, Command: c.spec.Command, Args: c.spec.Args}, runtime.BinDir)
	if err != nil {
		return nil, err
	}
	// The address may not have reached the cluster's copy of the pod yet.
	pod = c.w.withAddresses(pod)
	env, err := environment(c.w.k.conf.Cluster, pod, c.spec, program.Env)
	if err != nil {
		return nil, err
	}
	mounts, err := vols.mounts(pod, c.spec)
	if err != nil {
		return nil, err
	}
	can, denied, err := capabilities(pod, c.spec)
	if err != nil {
		return nil, err
	}
	if denied != "" {
		c.w.event(corev1.EventTypeWarning, "CapabilitiesLimited", denied)
	}
	c.mu.Lock()
	attempt := c.attempt
	if c.tried {
		attempt++
	}
	c.mu.Unlock()
	c.w.mu.Lock()
	sandbox := c.w.sandbox
	c.w.mu.Unlock()
	run, err := sandbox.Start(runtime.ContainerConfig{
		Name: c.spec.Name, Argv: expandAll(program.Argv, env), Env: env, Dir: c.spec.WorkingDir, Mounts: mounts, Caps: can,
		Log: c.w.k.logPath(pod, c.spec.Name, attempt),
	})
	if err != nil {
		return nil, err
	}
	c.set(func() {
		c.run, c.attempt, c.tried, c.waiting, c.message, c.killed = run, attempt, true, "", "", ""
		c.started, c.ready = c.spec.StartupProbe == nil, c.spec.StartupProbe == nil && c.spec.ReadinessProbe == nil
	})
	c.w.event(corev1.EventTypeNormal, "Started", "Started container "+c.spec.Name)
	return run, nil
}

// awaitStarted waits until a restartable init container has started.
func (c *container) awaitStarted(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c.mu.Lock()
		ok := c.run != nil && c.started
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// hook runs a postStart or preStop action.
func (c *container) hook(ctx context.Context, h *corev1.LifecycleHandler) error {
	run := c.running()
	switch {
	case run == nil:
		return nil
	case h.Exec != nil:
		return execProbe(ctx, run, h.Exec.Command)
	case h.HTTPGet != nil:
		return c.w.httpProbe(ctx, c.spec, h.HTTPGet)
	case h.Sleep != nil:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
		}
	}
	return nil
}

// grace is how long a container of the pod may take to end.
func (w *worker) grace() time.Duration {
	if s := w.pod().Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}
