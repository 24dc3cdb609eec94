package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/enroll"
	"github.com/ambit-mesh/ambit/node/internal/objects"
	"github.com/ambit-mesh/ambit/node/internal/podwatch"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
	"github.com/ambit-mesh/ambit/node/internal/zds"
)

// agent brings every pod of the node to where enroll says it belongs.
type agent struct {
	conf   Config
	rules  enroll.Rules
	api    *podwatch.Client
	watch  *podwatch.Watch
	zds    *zds.Server
	probes *redirect.Probes
	log    *slog.Logger
	queue  *queue
	pods   *pods
	counts *counters
	spaces *spaces
	notes  notes
	plans  *plans

	adopted atomic.Bool // every pod that was there when the agent started has been looked at
	guarded bool        // bridges are, against forged probes; set before anything runs
}

// reconcile judges a pod anew and does what follows. A pod that must be looked at again says when.
func (a *agent) reconcile(ctx context.Context, k objects.Key) (again time.Duration, err error) {
	defer a.pods.lock(k)()
	pod, ns, known := a.watch.Pod(k)
	have := a.pods.get(k)
	if have != nil && (!known || have.pod.UID != pod.UID) {
		if newer, err := a.newer(ctx, have); err != nil || newer {
			return retryMin, err
		}
		if err := a.forget(have); err != nil {
			return 0, err
		}
		have = nil
	}
	verdict := a.rules.Decide(pod, ns)
	goesOn := ""
	if known && verdict.In {
		goesOn = pod.UID
	}
	if err := a.unkeep(k, goesOn); err != nil {
		return 0, err
	}
	if !known {
		return 0, nil
	}
	if have != nil {
		have.seen = true
	}
	switch {
	case !verdict.In && pod.Finished() && have != nil:
		return 0, a.forget(have) // its rules go with its namespace
	case !verdict.In && have != nil:
		have.pod = pod
		return a.release(ctx, have, verdict.Why)
	case !verdict.In:
		return 0, a.clean(ctx, pod)
	case len(pod.IPs) == 0 && have == nil:
		return 0, nil // no namespace yet: the plugin tells of it, or the next change
	}
	if have == nil {
		space, err := a.spaces.find(pod)
		if err != nil {
			a.keep(pod)
			return 0, fmt.Errorf("pod %s: %w", k, err)
		}
		have = &captured{ns: space, seen: true}
	}
	have.running = true
	if have.unsaid {
		return 0, a.say(ctx, pod, have)
	}
	if a.fresh(have, pod) {
		have.pod = pod
		return 0, nil
	}
	if err := a.enroll(ctx, pod, pod.IPs, have); err != nil || have.cuts == 0 {
		return 0, err
	}
	return a.conf.LeaveAfter, nil
}

// fresh reports whether a change of a pod is only the word that it has just been captured: many pods that join together do not
// wait while the kernel's rules of each are read once more. A look at the rules that was asked for a while later still comes.
func (a *agent) fresh(c *captured, pod objects.Pod) bool {
	return c.whole && !c.relaxed && c.leaving.IsZero() && time.Since(c.looked) < a.conf.LeaveAfter && slices.Equal(c.ips, pod.IPs) &&
		pod.Annotations[mesh.AnnotationRedirection] == mesh.RedirectionEnabled &&
		a.options(pod, c.options.V6) == c.options
}

// options are those of a pod's rules.
func (a *agent) options(pod objects.Pod, v6 bool) capture.Pod {
	return capture.Options(pod, capture.Pod{DNS: a.conf.DNSCapture, V6: v6, Probes: a.probes.Source})
}

// keep asks proxies to keep a pod that an earlier agent enrolled and whose namespace is not found: dropped, it would lose its
// connections, and it is captured all the same.
func (a *agent) keep(pod objects.Pod) {
	if pod.Annotations[mesh.AnnotationRedirection] == "" || pod.UID == "" {
		return
	}
	a.pods.keep(pod.Key, pod.UID)
	a.zds.Keep(pod.UID)
}

// unkeep takes a pod that was only kept from the proxies. uid is that of the pod that goes on, "" if none does.
func (a *agent) unkeep(k objects.Key, uid string) error {
	if kept := a.pods.kept(k); kept == "" || kept == uid {
		return nil
	}
	return a.zds.Del(a.pods.keep(k, ""))
}

// newer reports whether a captured pod that the watch does not show is only newer than what the watch has seen: the
// plugin tells of a pod as soon as it starts.
func (a *agent) newer(ctx context.Context, have *captured) (bool, error) {
	if have.seen {
		return false, nil
	}
	now, err := a.api.Pod(ctx, have.pod.Key)
	if podwatch.NotFound(err) {
		return false, nil
	}
	return err == nil && now.UID == have.pod.UID, err
}

// enroll captures a pod: the proxy's listeners first, for a pod that runs must find them once its rules are there, and the
// exemption of probes, which must not come upon the proxy; then the rules, whatever became of the proxy, then the word to
// everybody.
// A namespace that was not captured before becomes the agent's.
func (a *agent) enroll(ctx context.Context, pod objects.Pod, ips []netip.Addr, have *captured) error {
	start := time.Now()
	visit, err := redirect.Enter(have.ns)
	if err != nil {
		return fmt.Errorf("redirect pod %s: %w", pod.Key, err)
	}
	defer visit()
	v6, err := redirect.V6(have.ns)
	if err != nil {
		return fmt.Errorf("redirect pod %s: %w", pod.Key, err)
	}
	options := a.options(pod, v6)
	plan, err := a.plans.of(options)
	if err != nil {
		return fmt.Errorf("redirect pod %s: %w", pod.Key, err)
	}
	tampered := have.whole && have.options == options && !have.relaxed
	if have.options != options || have.relaxed {
		have.right = 0
	}
	have.pod, have.options, have.plan, have.leaving, have.relaxed, have.unsaid = pod, options, plan, time.Time{}, false, false
	if len(ips) > 0 {
		have.ips = ips
	}
	a.pods.set(pod.Key, have)
	if err := a.unkeep(pod.Key, pod.UID); err != nil {
		return err
	}
	a.pods.keep(pod.Key, "")
	told := a.tell(have)
	exempted := a.exempt(have, told)
	if err := a.redirect(ctx, pod, have, tampered); err != nil {
		have.whole = false
		return errors.Join(fmt.Errorf("redirect pod %s: %w", pod.Key, err), told, exempted)
	}
	err = errors.Join(told, exempted)
	if have.unsaid = err == nil && !have.running; err == nil && have.running {
		err = a.annotate(ctx, pod, mesh.RedirectionEnabled)
	}
	if err != nil {
		if errors.Is(told, zds.ErrNoProxy) && have.whole && exempted == nil {
			return nil // a proxy that comes back is told of every pod
		}
		have.whole = false
		if pod.Annotations[mesh.AnnotationRedirection] == mesh.RedirectionEnabled {
			return err // no step back: others would send plain text to a pod that waits for its proxy
		}
		return errors.Join(err, a.annotate(ctx, pod, mesh.RedirectionPending))
	}
	have.looked = time.Now()
	if !have.whole {
		have.whole = true
		a.counts.enrolled.Inc()
		a.log.Info("pod enrolled", "pod", pod.Key.String(), "took", time.Since(start).Round(time.Microsecond).String())
	}
	return nil
}

// say makes a pod that was whole before its first process say so. That process does not wait for the API server.
func (a *agent) say(ctx context.Context, pod objects.Pod, have *captured) error {
	if err := a.annotate(ctx, pod, mesh.RedirectionEnabled); err != nil {
		return err
	}
	have.pod, have.unsaid = pod, false
	return nil
}

// tell hands a pod to the node proxy.
func (a *agent) tell(c *captured) error {
	space, err := c.ns.Dup()
	if err == nil {
		err = a.zds.Add(zds.Workload{UID: c.pod.UID, Name: c.pod.Name, Namespace: c.pod.Namespace, ServiceAccount: c.pod.ServiceAccount, NS: space})
	}
	if err != nil {
		return fmt.Errorf("pod %s: %w", c.pod.Key, err)
	}
	return nil
}

// redirect makes the kernel hold the pod's rules.
func (a *agent) redirect(ctx context.Context, pod objects.Pod, have *captured, tampered bool) error {
	ours, err := have.plan.Captured(have.ns)
	if err != nil {
		return err
	}
	var diff []string
	if ours {
		var now nft.Generation
		if diff, now, err = have.plan.Differences(have.ns, have.right); err != nil {
			return err
		}
		if len(diff) == 0 {
			have.right = now
			a.cutPast(have)
			return nil
		}
	} else if have.running {
		if err := redirect.ForgetOld(have.ns); err != nil {
			return err
		}
	}
	if have.right, err = have.plan.Apply(have.ns); err != nil {
		return err
	}
	ended := 0
	if have.running {
		have.cuts = cutTries
		ended = a.cutPast(have)
	}
	if have.running && !ours {
		a.ranUncaptured(ctx, pod, ended)
	}
	if tampered {
		a.log.Warn("rules of a pod were changed and are repaired", "pod", pod.Key.String(), "difference", diff)
	}
	return nil
}

// cutTries is how often connections that go past new rules are looked for: one may only just be made when they come.
const cutTries = 2

// cutPast ends the connections that a pod had before its rules: what is said of a captured pod must be true of all of them.
func (a *agent) cutPast(c *captured) int {
	if c.cuts == 0 {
		return 0
	}
	c.cuts--
	ended, err := redirect.CutPast(c.ns, !c.options.BypassInbound)
	if err != nil {
		a.log.Warn("connections from before the pod's capture may go on until they end", "pod", c.pod.Key.String(), "error", err)
	}
	if len(ended) > 0 {
		a.log.Info("connections from before the pod's capture were ended", "pod", c.pod.Key.String(), "connections", len(ended))
	}
	return len(ended)
}

// exempt lets the probes of a pod pass. told is what became of handing the pod to the proxy: a pod that never had one is not
// ready, and its probes say so; those of a pod that was whole once go on, whatever its proxy does.
func (a *agent) exempt(c *captured, told error) error {
	if told != nil && !c.whole && c.pod.Annotations[mesh.AnnotationRedirection] != mesh.RedirectionEnabled {
		return nil
	}
	if err := a.probes.Add(c.ips...); err != nil {
		return fmt.Errorf("probes of pod %s: %w", c.pod.Key, err)
	}
	return nil
}

// annotate tells everybody how far a pod is, unless the pod says so already.
func (a *agent) annotate(ctx context.Context, pod objects.Pod, value string) error {
	if pod.Annotations[mesh.AnnotationRedirection] == value {
		return nil
	}
	if err := a.api.Annotate(ctx, pod.Key, mesh.AnnotationRedirection, value); err != nil && !podwatch.NotFound(err) {
		return fmt.Errorf("annotate pod %s: %w", pod.Key, err)
	}
	return nil
}

// release lets a living pod out of the mesh and leaves no rule behind. Others learn of it first: until they have, their
// tunnels to the pod must find its proxy, and the proxy its rules. Then nothing new is captured, and what the proxy has in
// hand may end before its listeners and the rest of the rules go.
func (a *agent) release(ctx context.Context, c *captured, why string) (again time.Duration, err error) {
	if err := a.annotate(ctx, c.pod, ""); err != nil {
		return 0, err
	}
	if c.leaving.IsZero() {
		c.leaving = time.Now().Add(a.conf.LeaveAfter)
	}
	if wait := time.Until(c.leaving); wait > 0 {
		return wait, nil
	}
	if !c.relaxed {
		if err := redirect.Relax(c.ns); err != nil {
			return 0, fmt.Errorf("release pod %s: %w", c.pod.Key, err)
		}
		c.relaxed, c.leaving = true, time.Now().Add(a.conf.LeaveAfter)
		return a.conf.LeaveAfter, nil
	}
	if _, err := redirect.CutCaptured(c.ns); err != nil {
		a.log.Warn("connections that a pod's proxy has in hand may not notice that it leaves the mesh", "pod", c.pod.Key.String(), "error", err)
	}
	if err := redirect.Remove(c.ns); err != nil {
		return 0, fmt.Errorf("release pod %s: %w", c.pod.Key, err)
	}
	if err := redirect.ForgetCaptured(c.ns); err != nil {
		a.log.Warn("tracked connections of a pod that left the mesh are kept until they time out", "pod", c.pod.Key.String(), "error", err)
	}
	if err := a.forget(c); err != nil {
		return 0, err
	}
	a.log.Info("pod left the mesh", "pod", c.pod.Key.String(), "why", why)
	return 0, nil
}

// forget lets go of a pod that has ended or whose rules are gone.
func (a *agent) forget(c *captured) error {
	err := errors.Join(a.zds.Del(c.pod.UID), a.probes.Delete(c.ips...), c.ns.Close())
	a.pods.drop(c.pod.Key)
	a.counts.released.Inc()
	return err
}

// clean takes rules out of a pod that an earlier agent captured and that is no longer of the mesh.
func (a *agent) clean(ctx context.Context, pod objects.Pod) error {
	if pod.Annotations[mesh.AnnotationRedirection] == "" || pod.HostNetwork || len(pod.IPs) == 0 || pod.Finished() {
		return nil
	}
	space, err := a.spaces.find(pod)
	if err != nil {
		return fmt.Errorf("pod %s: %w", pod.Key, err)
	}
	return errors.Join(a.strip(ctx, pod, space), space.Close())
}

// strip takes annotation and rules from a pod that is not ours.
func (a *agent) strip(ctx context.Context, pod objects.Pod, space *netns.Namespace) error {
	if err := a.annotate(ctx, pod, ""); err != nil {
		return err
	}
	if err := redirect.Remove(space); err != nil {
		return fmt.Errorf("release pod %s: %w", pod.Key, err)
	}
	return a.probes.Delete(pod.IPs...)
}
