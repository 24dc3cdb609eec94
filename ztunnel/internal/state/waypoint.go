package state

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/hbone"
)

// waypointOf chooses the waypoint of a service: by weight among several, else the one. Several without any weight still
// say that there is one.
func (s *Store) waypointOf(svc *Service) *Gateway {
	var total uint64
	for _, g := range svc.Weighted {
		total += uint64(g.Weight)
	}
	switch {
	case total > 0:
	case svc.Waypoint == nil && len(svc.Weighted) > 0:
		return svc.Weighted[0].Gateway
	default:
		return svc.Waypoint
	}
	at := s.conf.Pick(total)
	for _, g := range svc.Weighted {
		if at < uint64(g.Weight) {
			return g.Gateway
		}
		at -= uint64(g.Weight)
	}
	return svc.Waypoint
}

// toWaypointLocked goes through a waypoint or nowhere: traffic that should pass it never goes around it.
func (s *Store) toWaypointLocked(from *Workload, gw *Gateway, r Route) Route {
	r.Waypoint = gw
	no := func(detail string) Route { return r.refuse(why{cause: noWaypoint, detail: detail}) }
	svc, w := s.index.gateway(gw)
	port := gw.Port
	switch {
	case svc != nil && svc.Problem != "":
		return no("it is not understood: " + svc.Problem)
	case svc != nil:
		at := netip.AddrPortFrom(r.To.Addr(), gw.Port)
		e, target, ok := s.chooseLocked(from, svc, at, asWaypoint)
		if !ok {
			return no(s.excludedLocked(svc, at, asWaypoint))
		}
		w, port = e.w, target
	case w == nil:
		return no("it was not received")
	case w.Problem != "":
		return no("it is not understood: " + w.Problem)
	case w.Network != s.conf.Network:
		return no(elsewhere(w))
	}
	addr := svc.addressOf(w, r.To.Addr())
	if !addr.IsValid() {
		return no("its endpoint " + w.UID + " has no address")
	}
	r.Via, r.Kind, r.Type, r.why = w, HBONE, ToServerWaypoint, why{cause: hasWaypoint}
	r.Hop = hbone.Hop{Addr: netip.AddrPortFrom(addr, port), Own: from.Identity, Expect: expect(w, svc)}
	return r
}

// IsWaypointFor reports whether a workload is (part of) a waypoint of what an address stands for.
func (s *Store) IsWaypointFor(w *Workload, a netip.Addr) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a = a.Unmap()
	if svc := s.vipLocked(a, w.Namespace); svc != nil {
		for _, g := range svc.Weighted {
			if s.index.is(w, g.Gateway) {
				return true
			}
		}
		return svc.Waypoint != nil && s.index.is(w, svc.Waypoint)
	}
	to := s.index.workload(address{s.conf.Network, a})
	return to != nil && to.Waypoint != nil && s.index.is(w, to.Waypoint)
}
