package control

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/status"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/xds/server"
)

// How often it is found out what is in force where.
const (
	forceEvery = 100 * time.Millisecond // at most
	forceLooks = time.Second            // while something lags: how long is known by time alone
	// forceGrace is how long a proxy may lag before it is told: each change takes a moment, and proxies come and go.
	forceGrace = 3 * time.Second
)

// forcing finds out on which node proxies policies and entries are in force, and tells it in their status.
type forcing struct {
	c    *Control
	xds  *server.Server[source.Caller]
	wake chan struct{}
	lags map[string]time.Time // since when a need lags, by key; owned by run
	bare map[string]time.Time // since when a workload is in no proxy's care, by uid; owned by run

	soon bool // what is told will change by time alone; owned by run

	peers    *exchange // with the other control planes; nil for none
	reported time.Time // when they were told last; owned by run
	unsaid   bool      // there may be something else to tell them; owned by run

	mu      sync.Mutex // guards below
	needs   map[string]status.Need
	changed map[string]time.Time
}

func newForcing(c *Control) *forcing {
	f := &forcing{c: c, wake: make(chan struct{}, 1), lags: map[string]time.Time{}, bare: map[string]time.Time{}, needs: map[string]status.Need{}, changed: map[string]time.Time{}}
	if c.conf.Leader != nil && c.conf.Peers != nil {
		f.peers = &exchange{c: c, peers: c.conf.Peers, wake: func() { signal(f.wake) }}
	}
	return f
}

// answered is told of every answer of a proxy.
func (f *forcing) answered(server.Subscriber[source.Caller]) { signal(f.wake) }

func (f *forcing) note(es []collection.Event[status.Need]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range es {
		if e.New == nil {
			delete(f.needs, e.Key)
			delete(f.changed, e.Key)
			continue
		}
		f.needs[e.Key], f.changed[e.Key] = *e.New, time.Now()
	}
	signal(f.wake)
}

// run judges again whenever something may have changed, until ctx ends.
func (f *forcing) run(ctx context.Context, xds *server.Server[source.Caller]) error {
	f.xds = xds
	defer f.c.out.Needs.Watch(f.note)()
	defer f.c.store.Objects.Pods.Watch(func(es []collection.Event[*corev1.Pod]) {
		for _, e := range es {
			if e.New != nil && f.isProxy(*e.New) || e.Old != nil && f.isProxy(*e.Old) {
				signal(f.wake)
				return
			}
		}
	})()
	defer f.c.out.Workloads.Watch(func(es []collection.Event[*workload.Workload]) {
		for _, e := range es {
			if e.New != nil && len((*e.New).AuthorizationPolicies) > 0 || e.Old != nil && len((*e.Old).AuthorizationPolicies) > 0 {
				signal(f.wake)
				return
			}
		}
	})()
	if t, ok := f.c.conf.Objects.(interface{ OnProblem(func()) }); ok {
		t.OnProblem(func() { signal(f.wake) })
	}
	for {
		f.judge(time.Now())
		f.tellStale()
		if !sleep(ctx, nil, forceEvery) {
			return nil
		}
		wait := forceLooks
		if len(f.lags) == 0 && !f.soon && !f.unsaid {
			wait = time.Hour // nothing happens unless it is told
		}
		if !sleep(ctx, f.wake, wait) {
			return nil
		}
	}
}

// sleep waits for a time or until woken; false means that ctx has ended.
func sleep(ctx context.Context, wake <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-t.C:
	}
	return true
}

// judge brings what is told up to date.
func (f *forcing) judge(now time.Time) {
	f.mu.Lock()
	needs, changed := maps.Clone(f.needs), maps.Clone(f.changed)
	f.mu.Unlock()
	if len(needs) == 0 && collection.Len[status.Force](f.c.out.Forces) == 0 && f.peers == nil {
		return
	}
	proxies, elsewhere := f.proxies()
	f.report(needs, changed, proxies, now)
	grace := forceGrace
	if elsewhere {
		grace += peersEvery * 2
	}
	f.soon = false
	before := f.bare
	f.bare = map[string]time.Time{}
	var tell []status.Force
	for key, n := range needs {
		v := status.Judge(n, changed[key], proxies)
		c := v.Condition(n.Of.GetGeneration())
		if v.Have == v.Of && v.Of > 0 {
			delete(f.lags, key)
		} else if since, lagging := f.lags[key]; !lagging || since.Before(changed[key]) {
			f.lags[key] = now
		}
		if n.Selects {
			c = f.selection(n, before, now).Told(c)
		}
		if v.Have == v.Of || v.Refused || now.Sub(f.lags[key]) >= grace {
			x := status.Force{Key: key, Condition: c}
			if told, ok := f.c.out.Forces.Get(key); !ok || told != x {
				tell = append(tell, x)
			}
		}
	}
	if len(tell) > 0 {
		f.c.store.Graph.Change(func(w *collection.Wave) { f.c.out.Forces.Upsert(w, tell...) })
	}
	f.forget(needs)
}

// selection finds the workloads that a policy selects. One that has just begun may still be on its way into the mesh.
func (f *forcing) selection(n status.Need, before map[string]time.Time, now time.Time) status.Selection {
	var s status.Selection
	for _, w := range f.c.out.Selected.Lookup(n.Names[0]) {
		s.All++
		if w.TunnelProtocol == workload.TunnelProtocol_HBONE {
			continue
		}
		since, known := before[w.Uid]
		if !known {
			since = now
		}
		f.bare[w.Uid] = since
		if now.Sub(since) < forceGrace {
			f.soon = true
		} else {
			s.Bare = append(s.Bare, w.Namespace+"/"+w.Name)
		}
	}
	return s
}

// forget drops what was told of objects that are gone.
func (f *forcing) forget(needs map[string]status.Need) {
	var gone []string
	for key := range f.c.out.Forces.All() {
		if _, there := needs[key]; !there {
			gone = append(gone, key)
			delete(f.lags, key)
		}
	}
	if len(gone) > 0 {
		f.c.store.Graph.Change(func(w *collection.Wave) { f.c.out.Forces.Delete(w, gone...) })
	}
}

// isProxy tells node proxies from other pods.
func (f *forcing) isProxy(p *corev1.Pod) bool {
	return slices.Contains(f.c.conf.NodeAccounts, p.Namespace+"/"+p.Spec.ServiceAccountName)
}

// report tells other control planes what the proxies have that are connected to us.
func (f *forcing) report(needs map[string]status.Need, changed map[string]time.Time, proxies []status.Proxy, now time.Time) {
	if f.peers == nil {
		return
	}
	if f.unsaid = now.Sub(f.reported) < peersEvery; f.unsaid { // it costs more than to judge, and nobody looks more often
		return
	}
	f.reported = now
	ours := slices.DeleteFunc(slices.Clone(proxies), func(p status.Proxy) bool { return !p.Connected || p.Elsewhere != nil })
	found := map[status.Mark]status.Verdict{}
	for key, n := range needs {
		found[n.Mark()] = status.Judge(n, changed[key], ours)
	}
	f.peers.report(status.NewReport(ours, found))
}

// proxies are the node proxies that run or are connected, to us or elsewhere.
func (f *forcing) proxies() (out []status.Proxy, elsewhere bool) {
	all := map[string]*status.Proxy{}
	for _, p := range f.c.store.Objects.Pods.All() {
		if f.isProxy(p) && p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
			name := p.Name + "." + p.Namespace
			all[name] = &status.Proxy{Name: name}
		}
	}
	for _, s := range f.xds.Subscribers() {
		if !slices.Contains(f.c.conf.NodeAccounts, s.Caller.Account()) {
			continue
		}
		name := s.Caller.Pod + "." + s.Caller.Namespace
		p, ok := all[name]
		if !ok {
			if s.Caller.Pod != "" {
				continue // a pod that is on its way out
			}
			p = &status.Proxy{Name: s.Node}
			all[s.Node] = p
		}
		// Of two streams of one proxy the later counts: the other has not ended yet.
		p.Connected, p.Through = true, map[string]time.Time{}
		nack := false
		for url, t := range s.Types {
			p.Through[url] = t.Through
			nack = nack || t.Nack != ""
		}
		p.Refused = func(typeURL, name string) string {
			if !nack {
				return ""
			}
			for _, h := range f.xds.Holders(typeURL, name) {
				if h.Node == s.Node && h.Caller == s.Caller && h.Refused {
					return h.Nack
				}
			}
			return ""
		}
	}
	if f.peers != nil {
		for _, r := range f.peers.told() {
			for _, name := range r.Proxies {
				if p, runs := all[name]; runs && !p.Connected { // one that comes to us may still be in another's report
					p.Connected, p.Elsewhere, elsewhere = true, r, true
				}
			}
		}
	}
	out = make([]status.Proxy, 0, len(all))
	for _, p := range all {
		out = append(out, *p)
	}
	return out, elsewhere
}

// tellStale notes the objects that are not understood as they are now.
func (f *forcing) tellStale() {
	want := map[string]status.Stale{}
	for _, p := range f.c.problems() {
		for instead, refs := range map[status.Instead][]source.Ref{status.Earlier: p.Kept, status.Closed: p.Closed, status.Nothing: p.Unread} {
			for _, r := range refs {
				s := status.Stale{Ref: r, Why: p.Why, Instead: instead}
				want[s.Key()] = s
			}
		}
	}
	var gone []string
	for key := range f.c.out.Stale.All() {
		if _, still := want[key]; !still {
			gone = append(gone, key)
		}
	}
	if len(want)+len(gone) == 0 {
		return
	}
	f.c.store.Graph.Change(func(w *collection.Wave) {
		f.c.out.Stale.Delete(w, gone...)
		for _, s := range want {
			f.c.out.Stale.Upsert(w, s)
		}
	})
}
