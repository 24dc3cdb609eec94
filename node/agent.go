package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/enroll"
	"github.com/ambit-mesh/ambit/node/internal/podwatch"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
	"github.com/ambit-mesh/ambit/node/internal/zds"
)

// agent brings every pod of the node to where enroll says it belongs.
type agent struct {
	conf   Config
	api    *podwatch.Client
	watch  *podwatch.Watch
	zds    *zds.Server
	probes *redirect.Probes
	log    *slog.Logger
	queue  *queue
	counts *counters

	mu    sync.Mutex // guards below
	known map[podwatch.Key]*captured
	busy  map[podwatch.Key]*sync.Mutex // one pod is worked on by one goroutine at a time
}

// captured is a pod whose namespace holds our rules.
type captured struct {
	pod   podwatch.Pod
	ns    *netns.Namespace
	rules capture.Rules
	whole bool // also at the proxy, exempted and annotated
}

// lock makes a pod ours to work on.
func (a *agent) lock(k podwatch.Key) (unlock func()) {
	a.mu.Lock()
	m, ok := a.busy[k]
	if !ok {
		m = &sync.Mutex{}
		a.busy[k] = m
	}
	a.mu.Unlock()
	m.Lock()
	return m.Unlock
}

func (a *agent) captured(k podwatch.Key) *captured {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known[k]
}

func (a *agent) remember(k podwatch.Key, c *captured) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c == nil {
		delete(a.known, k)
		delete(a.busy, k)
		return
	}
	a.known[k] = c
}

// reconcile judges a pod anew and does what follows.
func (a *agent) reconcile(ctx context.Context, k podwatch.Key) error {
	defer a.lock(k)()
	pod, ns, known := a.watch.Pod(k)
	have := a.captured(k)
	if have != nil && (!known || have.pod.UID != pod.UID) {
		if err := a.gone(k, have); err != nil {
			return err
		}
		have = nil
	}
	if !known {
		return nil
	}
	verdict := enroll.Decide(pod, ns, a.conf.ExcludeNamespaces)
	switch {
	case !verdict.In && pod.Finished() && have != nil:
		return a.gone(k, have)
	case !verdict.In && have != nil:
		return a.release(ctx, k, have, verdict.Why)
	case !verdict.In:
		return a.clean(ctx, pod)
	case len(pod.IPs) == 0 && have == nil:
		return nil // no namespace yet: the plugin tells of it, or the next change
	}
	var space *netns.Namespace
	if have == nil {
		var err error
		if space, err = find(a.conf.NetnsDir, pod.IPs); err != nil {
			return fmt.Errorf("pod %s: %w", k, err)
		}
	}
	return a.enroll(ctx, pod, space, pod.IPs, have)
}

// enroll captures a pod: rules first, then the proxy, then the exemption of probes, then the word to everybody.
// space is the pod's namespace, which enroll takes over; nil when it is captured already.
func (a *agent) enroll(ctx context.Context, pod podwatch.Pod, space *netns.Namespace, ips []netip.Addr, have *captured) error {
	start := time.Now()
	rules := capture.For(enroll.Options(pod, a.conf.DNSCapture, redirect.V6()))
	if have == nil {
		have = &captured{ns: space}
	}
	have.pod, have.rules = pod, rules
	diff, err := redirect.Differences(have.ns, rules)
	if err == nil && len(diff) > 0 {
		err = redirect.Apply(have.ns, rules)
		if err == nil && have.whole {
			a.log.Warn("rules of a pod were changed and are repaired", "pod", pod.Key.String(), "difference", diff)
		}
	}
	if err != nil {
		if a.captured(pod.Key) == nil {
			have.ns.Close()
		}
		return fmt.Errorf("redirect pod %s: %w", pod.Key, err)
	}
	a.remember(pod.Key, have)
	if err := a.complete(ctx, have, ips); err != nil {
		have.whole = false
		return errors.Join(err, a.annotate(ctx, pod, mesh.RedirectionPending))
	}
	if !have.whole {
		have.whole = true
		a.counts.enrolled.Inc()
		a.log.Info("pod enrolled", "pod", pod.Key.String(), "took", time.Since(start).Round(time.Microsecond).String())
	}
	return nil
}

func (a *agent) complete(ctx context.Context, c *captured, ips []netip.Addr) error {
	space, err := c.ns.Dup()
	if err != nil {
		return err
	}
	err = a.zds.Add(zds.Workload{UID: c.pod.UID, Name: c.pod.Name, Namespace: c.pod.Namespace, ServiceAccount: c.pod.ServiceAccount, NS: space})
	if err != nil {
		return fmt.Errorf("pod %s: %w", c.pod.Key, err)
	}
	if err := a.probes.Add(ips...); err != nil {
		return fmt.Errorf("probes of pod %s: %w", c.pod.Key, err)
	}
	return a.annotate(ctx, c.pod, mesh.RedirectionEnabled)
}

// annotate tells everybody how far a pod is, unless the pod says so already.
func (a *agent) annotate(ctx context.Context, pod podwatch.Pod, value string) error {
	if pod.Annotations[mesh.AnnotationRedirection] == value {
		return nil
	}
	if err := a.api.Annotate(ctx, pod.Key, mesh.AnnotationRedirection, value); err != nil && !podwatch.NotFound(err) {
		return fmt.Errorf("annotate pod %s: %w", pod.Key, err)
	}
	return nil
}

// release lets a living pod out of the mesh and leaves no rule behind.
func (a *agent) release(ctx context.Context, k podwatch.Key, c *captured, why string) error {
	if err := a.annotate(ctx, c.pod, ""); err != nil {
		return err
	}
	if err := redirect.Remove(c.ns); err != nil {
		return fmt.Errorf("release pod %s: %w", k, err)
	}
	if err := a.forget(k, c); err != nil {
		return err
	}
	a.log.Info("pod left the mesh", "pod", k.String(), "why", why)
	return nil
}

// gone is for a pod that has ended: its rules went with its namespace.
func (a *agent) gone(k podwatch.Key, c *captured) error { return a.forget(k, c) }

func (a *agent) forget(k podwatch.Key, c *captured) error {
	err := errors.Join(a.zds.Del(c.pod.UID), a.probes.Delete(c.pod.IPs...))
	c.ns.Close()
	a.remember(k, nil)
	a.counts.released.Inc()
	return err
}

// clean takes rules out of a pod that an earlier agent captured and that is no longer of the mesh.
func (a *agent) clean(ctx context.Context, pod podwatch.Pod) error {
	if pod.Annotations[mesh.AnnotationRedirection] == "" || pod.HostNetwork || len(pod.IPs) == 0 || pod.Finished() {
		return nil
	}
	space, err := find(a.conf.NetnsDir, pod.IPs)
	if err != nil {
		return fmt.Errorf("pod %s: %w", pod.Key, err)
	}
	defer space.Close()
	if err := a.api.Annotate(ctx, pod.Key, mesh.AnnotationRedirection, ""); err != nil && !podwatch.NotFound(err) {
		return err
	}
	return redirect.Remove(space)
}
