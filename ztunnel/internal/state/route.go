package state

import (
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/mesh"
)

// Kind is what is done with a connection. The zero value refuses it.
type Kind uint8

// The kinds.
const (
	Refuse      Kind = iota
	Passthrough      // to where the client dialled, which the mesh does not know
	Plaintext        // to a workload that has no tunnel
	HBONE            // through a tunnel
)

func (k Kind) String() string {
	return [...]string{"Refuse", "Passthrough", "Plaintext", "HBONE"}[k]
}

// Types of routes, in the words of the access log.
const (
	Direct           = "Direct"
	ToServerWaypoint = "ToServerWaypoint"
	PassedThrough    = "Passthrough"
)

// Route is a decision about one connection, and why it was taken.
type Route struct {
	Kind Kind
	// Type is Direct, ToServerWaypoint or Passthrough.
	Type string
	// Hop is the next machine of a tunnel.
	Hop hbone.Hop
	// To is where the bytes end as the next machine sees it: an endpoint, or a service for a waypoint.
	To netip.AddrPort
	// Resolve is the host name of an endpoint that has no address. At makes the route to one of its addresses.
	Resolve string
	// Service is what the client dialled, and Workload the instance that was chosen; nil if unknown.
	Service  *Service
	Workload *Workload
	// Waypoint is the one that the connection has to pass, and Via the instance of it that was chosen; nil if none.
	Waypoint *Gateway
	Via      *Workload

	why why
}

// Why explains the decision; for Refuse it is the error.
func (r Route) Why() string { return r.why.text(r) }

// At is the route to an address of the endpoint that Resolve names.
func (r Route) At(a netip.Addr) Route {
	r.Resolve = ""
	r.To = netip.AddrPortFrom(a.Unmap(), r.To.Port())
	if r.Kind == HBONE {
		r.Hop.Addr = netip.AddrPortFrom(a.Unmap(), r.Hop.Addr.Port())
	}
	return r
}

// Unresolved is the refusal of a route whose Resolve has no address.
func (r Route) Unresolved(err error) Route {
	return r.refuse(why{cause: noAddress, detail: err.Error()})
}

func (r Route) refuse(y why) Route {
	r.Kind, r.Type, r.Hop, r.why = Refuse, "", hbone.Hop{}, y
	return r
}

// Route decides where a connection of a workload goes that dialled an address.
func (s *Store) Route(from *Workload, to netip.AddrPort) Route {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	s.mu.RLock()
	defer s.mu.RUnlock()
	if svc := s.vipLocked(to.Addr(), from.Namespace); svc != nil {
		return s.toServiceLocked(from, svc, to)
	}
	if w := s.index.workload(address{s.conf.Network, to.Addr()}); w != nil {
		return s.toWorkloadLocked(from, w, Route{To: to, Workload: w})
	}
	if s.conf.RegistryOnly {
		return Route{To: to}.refuse(why{cause: registryOnly})
	}
	return Route{Kind: Passthrough, Type: PassedThrough, To: to, why: why{cause: unknownAddress}}
}

// toWorkloadLocked leads a connection to a workload that was dialled by its own address.
func (s *Store) toWorkloadLocked(from, w *Workload, r Route) Route {
	if w.Problem != "" {
		return r.refuse(why{cause: badWorkload})
	}
	if w.Waypoint != nil && !s.index.is(from, w.Waypoint) {
		return s.toWaypointLocked(from, w.Waypoint, r)
	}
	return direct(from, w, r.To, r)
}

func (s *Store) toServiceLocked(from *Workload, svc *Service, to netip.AddrPort) Route {
	r := Route{Service: svc, To: to}
	if svc.Problem != "" {
		return r.refuse(why{cause: badService})
	}
	if gw := s.waypointOf(svc); gw != nil && !s.index.is(from, gw) {
		return s.toWaypointLocked(from, gw, r)
	}
	if svc.Balance.Mode == workload.LoadBalancing_PASSTHROUGH {
		if w := s.index.workload(address{s.conf.Network, to.Addr()}); w != nil {
			r.Workload = w
			return s.toWorkloadLocked(from, w, r)
		}
		r.Kind, r.Type, r.why = Passthrough, PassedThrough, why{cause: keepsAddress}
		return r
	}
	e, target, ok := s.chooseLocked(from, svc, to, ordinary)
	if !ok {
		return r.refuse(why{cause: noEndpoint, detail: s.excludedLocked(svc, to, ordinary)})
	}
	at := svc.addressOf(e.w, to.Addr())
	w := s.atLocked(e.w, at)
	if r.Workload = w; w.Problem != "" {
		return r.refuse(why{cause: badWorkload})
	}
	return direct(from, w, netip.AddrPortFrom(at, target), r)
}

// atLocked is who answers at an endpoint's address. Slices and entries that somebody wrote by hand may name that of a pod,
// which is then reached as that pod: through its tunnel, with its identity.
func (s *Store) atLocked(w *Workload, at netip.Addr) *Workload {
	if w.HBONE || !at.IsValid() {
		return w
	}
	if pod := s.index.workload(address{w.Network, at}); pod != nil && pod.HBONE {
		return pod
	}
	return w
}

// direct finishes a route to an endpoint without a waypoint.
func direct(from, w *Workload, to netip.AddrPort, r Route) Route {
	r.Workload, r.To, r.Type = w, to, Direct
	if !to.Addr().IsValid() {
		r.Resolve = w.Hostname
	}
	r.Kind, r.why = Plaintext, why{cause: known}
	if w.HBONE {
		r.Kind = HBONE
		r.Hop = hbone.Hop{Addr: netip.AddrPortFrom(to.Addr(), mesh.PortHBONE), Own: from.Identity, Expect: expect(w, r.Service)}
	}
	return r
}

// expect lists the identities that an endpoint of a service may have.
func expect(w *Workload, svc *Service) []identity.ID {
	if svc == nil || len(svc.SANs) == 0 {
		return w.expect
	}
	return slices.Concat(w.expect, svc.SANs)
}

// vipLocked finds the service of an address: that which has exactly it; else one of the client's own namespace with a
// block that holds it; else the one with the narrowest block.
func (s *Store) vipLocked(a netip.Addr, namespace string) *Service {
	var best *Service
	for svc := range s.index.byVIP.all(address{s.conf.Network, a}) {
		best = s.prefer(best, svc, namespace)
	}
	if best != nil || len(s.index.lengths) == 0 {
		return best
	}
	for _, l := range s.index.lengths {
		if l.v6 != a.Is6() {
			continue
		}
		p, err := a.Prefix(l.bits)
		if err != nil {
			continue // it is of the other family
		}
		var here *Service
		for svc := range s.index.blocks.all(block{s.conf.Network, p}) {
			here = s.prefer(here, svc, namespace)
		}
		switch {
		case here == nil:
		case here.Namespace == namespace:
			return here
		case best == nil:
			best = here
		}
	}
	return best
}

// prefer chooses between services of one address or name: the client's namespace first, then the canonical one, then
// the preferred namespace, then by name. Private services of other namespaces do not exist. best may be nil.
func (s *Store) prefer(best, svc *Service, namespace string) *Service {
	switch {
	case svc.Private && svc.Namespace != namespace:
		return best
	case best == nil:
		return svc
	}
	if x, y := svc.Namespace == namespace, best.Namespace == namespace; x != y {
		return either(x, svc, best)
	}
	if svc.Canonical != best.Canonical {
		return either(svc.Canonical, svc, best)
	}
	if x, y := svc.Namespace == s.conf.Preferred, best.Namespace == s.conf.Preferred; x != y {
		return either(x, svc, best)
	}
	return either(svc.key < best.key, svc, best)
}

func either(first bool, a, b *Service) *Service {
	if first {
		return a
	}
	return b
}

// Workload is the workload of an address of our network; nil if there is none.
func (s *Store) Workload(a netip.Addr) *Workload {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.index.workload(address{s.conf.Network, a.Unmap()})
}

// Pod is the workload of a pod; nil if it is not known yet.
func (s *Store) Pod(cluster, namespace, name string) *Workload {
	uid := make([]byte, 0, 200) // on the stack: every connection asks
	uid = append(append(append(append(append(uid, cluster...), podUID...), namespace...), '/'), name...)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.index.workloads[string(uid)]
}

const podUID = "//Pod/"

// PodUID is the name of a pod's workload.
func PodUID(cluster, namespace, name string) string {
	return cluster + podUID + namespace + "/" + name
}
