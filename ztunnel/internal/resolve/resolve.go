// Package resolve finds out what a decision about a connection needs, and has it taken.
package resolve

import (
	"context"
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// Asker waits until the control plane has told of names.
type Asker interface {
	Ask(ctx context.Context, names ...string) error
}

// Hosts looks up host names of endpoints, from inside a pod.
type Hosts interface {
	Lookup(ctx context.Context, pod *netns.Namespace, host string) ([]netip.Addr, error)
}

// Resolver decides where connections go.
type Resolver struct {
	State *state.Store
	// Ask is nil where the control plane tells everything unasked.
	Ask   Asker
	Hosts Hosts
	// Pick gives a random number below n, which is at least 1.
	Pick func(n uint64) uint64
	// Resolved is told of each endpoint that was looked up for a client. May be nil.
	Resolved func(from *state.Workload, host string)
}

// rounds is how often what arrived may need more: an address, its service, its waypoint, that one's service.
const rounds = 4

// Route decides where a connection of a workload goes that dialled an address from inside a pod.
func (r *Resolver) Route(ctx context.Context, pod *netns.Namespace, from *state.Workload, to netip.AddrPort) state.Route {
	if r.Ask != nil {
		if err := r.learn(ctx, from, to); err != nil {
			return state.Unanswered(to, err)
		}
	}
	route := r.State.Route(from, to)
	if route.Resolve == "" || route.Kind == state.Refuse {
		return route
	}
	if r.Resolved != nil {
		r.Resolved(from, route.Resolve)
	}
	addrs, err := r.Hosts.Lookup(ctx, pod, route.Resolve)
	if err != nil {
		route = route.Unresolved(err)
		route.To = to
		return route
	}
	return route.At(r.choose(addrs, to.Addr().Unmap().Is4()))
}

func (r *Resolver) learn(ctx context.Context, from *state.Workload, to netip.AddrPort) error {
	var known []string
	for range rounds {
		needs := r.State.Needs(from, to.Addr())
		if slices.Equal(needs, known) {
			return nil
		}
		if err := r.Ask.Ask(ctx, needs...); err != nil {
			return err
		}
		known = needs
	}
	return nil
}

// choose picks an address by chance, of the family that was dialled if there is one. There is at least one.
func (r *Resolver) choose(addrs []netip.Addr, v4 bool) netip.Addr {
	var same []netip.Addr
	for _, a := range addrs {
		if a.Is4() == v4 {
			same = append(same, a)
		}
	}
	if len(same) == 0 {
		same = addrs
	}
	return same[r.Pick(uint64(len(same)))]
}

// Party is a client as the metrics have it.
func Party(w *state.Workload) telemetry.Party {
	return telemetry.Party{
		Namespace: w.Namespace, Workload: w.Owner, CanonicalName: w.CanonicalName, CanonicalRevision: w.CanonicalRevision, Cluster: w.Cluster, Account: w.Identity,
	}
}
