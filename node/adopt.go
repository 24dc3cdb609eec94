package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/node/internal/objects"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
)

// adopt takes over what an earlier agent left, and only then lets node proxies connect: one that is told of a pod's absence
// closes the pod's connections.
func (a *agent) adopt(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.watch.Synced():
	}
	room := make(chan struct{}, workers)
	var wg sync.WaitGroup
	var failed atomic.Bool
	for _, p := range a.watch.Pods() {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			// The queue looks at the pod as well, and retries; here it only matters that each was tried.
			if _, err := a.look(ctx, p.Key); err != nil && ctx.Err() == nil {
				failed.Store(true)
				a.queue.put(p.Key)
			}
		})
	}
	wg.Wait()
	a.adopted.Store(true)
	if ctx.Err() != nil {
		return nil
	}
	if err := a.sweep(ctx); err != nil {
		a.log.Warn("rules that an earlier agent left were not all found", "error", err)
	}
	if !failed.Load() {
		a.prune()
	}
	return a.zds.Run(ctx)
}

// prune ends the exemption of pods that are gone, once every pod that is there has been taken over.
func (a *agent) prune() (done bool) {
	err := a.probes.Prune()
	if err != nil {
		a.log.Warn("exemptions of pods that ended were not taken back", "error", err)
	}
	return err == nil
}

// sweep takes rules out of the namespaces of pods that are not of the mesh: an agent may have ended between the word that
// a pod leaves and its end.
func (a *agent) sweep(ctx context.Context) error {
	var failed []error
	err := a.spaces.each(func(ns *netns.Namespace) {
		if ours, err := redirect.Captured(ns); err != nil || !ours || a.pods.has(ns) {
			return // not captured, or rightly, or gone meanwhile
		}
		for _, p := range a.watch.Pods() {
			if len(p.IPs) > 0 && holds(ns, p.IPs) {
				failed = append(failed, a.sweepPod(ctx, p.Key, ns))
			}
		}
	})
	return errors.Join(append(failed, err)...)
}

func (a *agent) sweepPod(ctx context.Context, k objects.Key, ns *netns.Namespace) error {
	defer a.pods.lock(k)()
	pod, of, known := a.watch.Pod(k)
	if !known || a.pods.get(k) != nil || a.rules.Decide(pod, of).In {
		return nil
	}
	a.log.Info("rules of an earlier agent are taken out of a pod", "pod", k.String())
	return a.strip(ctx, pod, ns)
}

// lookAll asks for a look at every pod.
func (a *agent) lookAll() {
	keys := a.pods.keys()
	for _, p := range a.watch.Pods() {
		keys = append(keys, p.Key)
	}
	for _, k := range keys {
		a.queue.put(k)
	}
}
