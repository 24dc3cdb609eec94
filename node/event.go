package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/node/cniplugin"
	"github.com/ambit-mesh/ambit/node/internal/objects"
)

// maxEvent bounds what the plugin may send, and maxPluginCalls how many pods may start at once.
const (
	maxEvent       = 64 << 10
	maxPluginCalls = 1024
)

// proxyAwaited is how long a new pod waits for a proxy that is away, as for a moment after the agent's start: a runtime
// that is told no asks again only after 10 s or more. Less than the plugin's patience with its agent.
const proxyAwaited = 2 * time.Second

// parseEvent reads what the plugin tells of a new pod.
func parseEvent(r io.Reader) (cniplugin.Event, []netip.Addr, error) {
	var e cniplugin.Event
	d := json.NewDecoder(io.LimitReader(r, maxEvent))
	if err := d.Decode(&e); err != nil {
		return e, nil, fmt.Errorf("event is not understood: %w", err)
	}
	if e.Netns == "" || e.PodName == "" || e.PodNamespace == "" {
		return e, nil, errors.New("event lacks Netns, PodName or PodNamespace")
	}
	var ips []netip.Addr
	for _, ip := range e.IPs {
		a, err := netip.ParseAddr(ip.Address.IP)
		if err != nil {
			return e, nil, fmt.Errorf("event: %w", err)
		}
		ips = append(ips, a.Unmap().WithZone(""))
	}
	return e, ips, nil
}

// serveEvents answers the plugin.
func (a *agent) serveEvents(ctx context.Context) error {
	l, err := listenUnix(a.conf.EventSocket)
	if err != nil {
		return fmt.Errorf("socket for the plugin: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cmdadd", func(w http.ResponseWriter, r *http.Request) {
		e, ips, err := parseEvent(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := a.newPod(r.Context(), e, ips); err != nil {
			a.counts.events.WithLabelValues("500").Inc()
			a.log.Warn("new pod must wait", "pod", e.PodNamespace+"/"+e.PodName, "error", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		a.counts.events.WithLabelValues("200").Inc()
		w.WriteHeader(http.StatusOK)
	})
	return lifecycle.HTTP{Conns: maxPluginCalls}.Serve(ctx, l, mux)
}

// newPod captures a pod before its first process runs, if it is of the mesh. Whatever keeps it from being captured
// keeps it from starting.
func (a *agent) newPod(ctx context.Context, e cniplugin.Event, ips []netip.Addr) error {
	k := objects.Key{Namespace: e.PodNamespace, Name: e.PodName}
	if a.zds.Connected() == 0 {
		a.awaitProxy(ctx, k, e.PodUID)
	}
	defer a.pods.lock(k)()
	pod, ns, err := a.lookup(ctx, k, e.PodUID)
	if err != nil {
		return err
	}
	if verdict := a.rules.Decide(pod, ns); !verdict.In {
		return nil
	}
	space, err := a.open(e.Netns)
	if err != nil {
		return err
	}
	defer a.queue.put(k) // to say that it is captured; and it may be gone before the watch has ever shown it
	have := a.pods.get(k)
	if have != nil && have.ns.ID() == space.ID() && have.pod.UID == pod.UID { // told once more
		return errors.Join(space.Close(), a.enroll(ctx, pod, ips, have))
	}
	if have != nil { // an earlier try, or an earlier pod of this name
		if err := a.forget(have); err != nil {
			return errors.Join(err, space.Close())
		}
	}
	return a.enroll(ctx, pod, ips, &captured{ns: space})
}

// awaitProxy holds a pod of the mesh up while there is no proxy for it. Whoever else works on the pod is not held up.
func (a *agent) awaitProxy(ctx context.Context, k objects.Key, uid string) {
	pod, ns, err := a.lookup(ctx, k, uid)
	if err != nil || !a.rules.Decide(pod, ns).In {
		return // the pod starts, or its lookup fails once more
	}
	ctx, cancel := context.WithTimeout(ctx, proxyAwaited)
	defer cancel()
	a.zds.Await(ctx)
}

// lookup reads the pod that starts. The copy of the API is believed only about this very pod: it may still have an earlier
// one of the same name, which says nothing about whether this one is of the mesh.
func (a *agent) lookup(ctx context.Context, k objects.Key, uid string) (objects.Pod, objects.Namespace, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	pod, ns, known := a.watch.Pod(k)
	var err error
	if !known || uid == "" || !pod.Is(uid) {
		if pod, err = a.api.Pod(ctx, k); err != nil {
			return pod, ns, fmt.Errorf("pod %s: %w", k, err)
		}
	}
	if !pod.Is(uid) {
		return pod, ns, fmt.Errorf("pod %s: the runtime starts one with UID %s, the API server has %s", k, uid, pod.UID)
	}
	if ns.Name == "" {
		if ns, err = a.api.Namespace(ctx, k.Namespace); err != nil {
			return pod, ns, fmt.Errorf("namespace %s: %w", k.Namespace, err)
		}
	}
	return pod, ns, nil
}
