package control

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// addressing gives addresses to the hosts of ServiceEntries that have none. They are kept in the entries' status.
type addressing struct {
	c    *Control
	held map[ambient.Claim]ambient.Slot // owned by run
	read map[string]bool                // entries whose status has been read, owned by run
	full bool                           // the last round found no slot for some
}

func newAddressing(c *Control) *addressing {
	return &addressing{c: c, held: map[ambient.Claim]ambient.Slot{}, read: map[string]bool{}}
}

// follow gives addresses to new entries until ctx ends.
func (a *addressing) follow(ctx context.Context) error {
	news := make(chan struct{}, 1)
	defer a.c.store.Objects.ServiceEntries.Watch(func([]collection.Event[*networkingv1.ServiceEntry]) { signal(news) })()
	for {
		a.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		}
	}
}

// round brings the addresses up to date with the entries.
func (a *addressing) round(ctx context.Context) {
	var entries []*networkingv1.ServiceEntry
	for _, se := range a.c.store.Objects.ServiceEntries.All() {
		entries = append(entries, se)
	}
	slices.SortFunc(entries, func(x, y *networkingv1.ServiceEntry) int {
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	var claims []ambient.Claim
	taken := map[ambient.Slot]bool{}
	for _, se := range entries {
		claims = append(claims, ambient.Claims(se)...)
		for _, s := range se.Spec.Addresses {
			if ip, err := netip.ParseAddr(s); err == nil {
				taken[ambient.SlotOf(ip)] = true
			}
		}
		a.recall(ctx, se)
	}
	maps.DeleteFunc(a.read, func(key string, _ bool) bool {
		_, there := a.c.store.Objects.ServiceEntries.Get(key)
		return !there
	})
	a.held = ambient.Allocate(a.held, claims, taken)
	if full := len(a.held) < len(claims); full != a.full {
		if a.full = full; full {
			a.c.conf.Log.Error("no address is left for some ServiceEntries; give them addresses of their own", "without", len(claims)-len(a.held))
		}
	}
	by := map[string]ambient.Assigned{}
	for c, s := range a.held {
		if by[c.Entry].Hosts == nil {
			by[c.Entry] = ambient.Assigned{Entry: c.Entry, Hosts: map[string]ambient.Slot{}}
		}
		by[c.Entry].Hosts[c.Host] = s
	}
	a.c.store.Graph.Change(func(w *collection.Wave) {
		a.c.out.Assigned.Replace(w, slices.Collect(maps.Values(by))...)
	})
}

// recall takes over what an entry was given before this process began, from its status.
func (a *addressing) recall(ctx context.Context, se *networkingv1.ServiceEntry) {
	key := se.Namespace + "/" + se.Name
	if a.read[key] {
		return
	}
	a.read[key] = true
	o, err := a.c.conf.Status.Read(ctx, kinds.Of(se), se.Namespace, se.Name)
	if err != nil {
		a.c.conf.Log.Warn("which addresses a ServiceEntry had is not known, it may get others", "entry", key, "error", err)
	}
	for _, from := range []kinds.Object{se, o} {
		if e, ok := from.(*networkingv1.ServiceEntry); ok {
			maps.Copy(a.held, ambient.Held(e))
		}
	}
}
