package state

import (
	"fmt"
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
	// Why explains the decision; for Refuse it is the error.
	Why string
	// Service is what the client dialled, and Workload the instance that was chosen; nil if unknown.
	Service  *Service
	Workload *Workload
}

// Route decides where a connection of a workload goes that dialled an address.
func (s *Store) Route(from *Workload, to netip.AddrPort) Route {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	s.mu.RLock()
	defer s.mu.RUnlock()
	if svc := s.vipLocked(to.Addr(), from.Namespace); svc != nil {
		return s.toServiceLocked(from, svc, to)
	}
	if w := s.workloadLocked(to.Addr()); w != nil {
		if w.Waypoint != nil && !s.isLocked(from, w.Waypoint) {
			return s.toWaypointLocked(from, w.Waypoint, Route{To: to, Workload: w, Why: "workload " + w.UID})
		}
		return direct(from, w, to, Route{Why: "workload " + w.UID})
	}
	return Route{Kind: Passthrough, Type: "Passthrough", To: to, Why: fmt.Sprintf("%s is neither a service nor a workload of the mesh", to.Addr())}
}

// vipLocked finds the service of an address: the exact one, else the narrowest block.
func (s *Store) vipLocked(a netip.Addr, namespace string) *Service {
	if svc := s.prefer(s.byVIP[address{s.conf.Network, a}], namespace); svc != nil {
		return svc
	}
	var best *Service
	bits := -1
	for block, svcs := range s.blocks {
		if block.Bits() > bits && block.Contains(a) {
			if svc := s.prefer(svcs, namespace); svc != nil {
				best, bits = svc, block.Bits()
			}
		}
	}
	return best
}

// prefer chooses among services of one address or name: the client's namespace first, then the preferred one, then the
// canonical one, then by name. Private services of other namespaces do not exist.
func (s *Store) prefer(svcs []*Service, namespace string) *Service {
	var best *Service
	better := func(a, b *Service) bool {
		if x, y := a.Namespace == namespace, b.Namespace == namespace; x != y {
			return x
		}
		if x, y := a.Namespace == s.conf.Preferred, b.Namespace == s.conf.Preferred; x != y {
			return x
		}
		if a.Canonical != b.Canonical {
			return a.Canonical
		}
		return a.Key() < b.Key()
	}
	for _, svc := range svcs {
		if svc.Private && svc.Namespace != namespace {
			continue
		}
		if best == nil || better(svc, best) {
			best = svc
		}
	}
	return best
}

func (s *Store) toServiceLocked(from *Workload, svc *Service, to netip.AddrPort) Route {
	r := Route{Service: svc, To: to, Why: "service " + svc.Key()}
	if svc.Waypoint != nil && !s.isLocked(from, svc.Waypoint) {
		return s.toWaypointLocked(from, svc.Waypoint, r)
	}
	if svc.Balance.Mode == workload.LoadBalancing_PASSTHROUGH {
		if w := s.workloadLocked(to.Addr()); w != nil {
			return direct(from, w, to, r)
		}
		r.Kind, r.Type, r.Why = Passthrough, "Passthrough", r.Why+" keeps the address that was dialled"
		return r
	}
	w, target, ok := s.chooseLocked(from, svc, to.Port())
	if !ok {
		r.Why = "no healthy upstream: " + to.String()
		return r
	}
	addr, ok := addressFor(w, to.Addr())
	if !ok {
		r.Why = "no healthy upstream: " + to.String()
		return r
	}
	r.Why += ", endpoint " + w.UID
	return direct(from, w, netip.AddrPortFrom(addr, target), r)
}

// direct finishes a route to a workload without a waypoint.
func direct(from, w *Workload, to netip.AddrPort, r Route) Route {
	r.Workload, r.To, r.Type = w, to, Direct
	if !w.HBONE {
		r.Kind, r.Why = Plaintext, r.Why+", which has no tunnel"
		return r
	}
	expect := []identity.ID{w.Identity}
	if r.Service != nil {
		expect = append(expect, r.Service.SANs...)
	}
	r.Kind = HBONE
	r.Hop = hbone.Hop{Addr: netip.AddrPortFrom(to.Addr(), mesh.PortHBONE), Own: from.Identity, Expect: expect}
	return r
}

// toWaypointLocked goes through a waypoint or nowhere: traffic that should pass it never goes around it.
func (s *Store) toWaypointLocked(from *Workload, gw *Gateway, r Route) Route {
	refuse := func(why string) Route {
		r.Kind, r.Why = Refuse, fmt.Sprintf("unknown waypoint: %s: %s", gw, why)
		return r
	}
	port := gw.Port
	if port == 0 {
		port = mesh.PortHBONE
	}
	svc, w := s.gatewayLocked(gw)
	if svc != nil {
		var ok bool
		if w, port, ok = s.chooseLocked(from, svc, port); !ok {
			return refuse("no healthy endpoint")
		}
	}
	if w == nil {
		return refuse("it was not received")
	}
	addr, ok := addressFor(w, r.To.Addr())
	if !ok {
		return refuse("its endpoint " + w.UID + " has no address")
	}
	expect := []identity.ID{w.Identity}
	if svc != nil {
		expect = append(expect, svc.SANs...)
	}
	r.Kind, r.Type = HBONE, ToServerWaypoint
	r.Hop = hbone.Hop{Addr: netip.AddrPortFrom(addr, port), Own: from.Identity, Expect: expect}
	r.Why += " has waypoint " + gw.String()
	return r
}

// gatewayLocked finds what a gateway's name or address stands for: a service or a workload.
func (s *Store) gatewayLocked(gw *Gateway) (*Service, *Workload) {
	if gw.Hostname != "" {
		return s.services[gw.Namespace+"/"+gw.Hostname], nil
	}
	if svcs := s.byVIP[address{gw.Network, gw.Addr}]; len(svcs) > 0 {
		return svcs[0], nil
	}
	if ws := s.byAddress[address{gw.Network, gw.Addr}]; len(ws) > 0 {
		return nil, ws[0]
	}
	return nil, nil
}

// isLocked reports whether a workload is (part of) a gateway.
func (s *Store) isLocked(w *Workload, gw *Gateway) bool {
	svc, at := s.gatewayLocked(gw)
	if svc != nil {
		_, in := findEndpoint(s.endpoints[svc.Key()], w.UID)
		return in
	}
	return at != nil && at.UID == w.UID
}

// IsWaypointFor reports whether a workload is (part of) the waypoint of what an address stands for.
func (s *Store) IsWaypointFor(w *Workload, a netip.Addr) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a = a.Unmap()
	if svc := s.vipLocked(a, w.Namespace); svc != nil {
		return svc.Waypoint != nil && s.isLocked(w, svc.Waypoint)
	}
	to := s.workloadLocked(a)
	return to != nil && to.Waypoint != nil && s.isLocked(w, to.Waypoint)
}

// addressFor chooses an address of the family that the client dialled, if the workload has one.
func addressFor(w *Workload, dialled netip.Addr) (netip.Addr, bool) {
	if len(w.Addresses) == 0 {
		return netip.Addr{}, false
	}
	if i := slices.IndexFunc(w.Addresses, func(a netip.Addr) bool { return a.Is4() == dialled.Is4() }); i >= 0 {
		return w.Addresses[i], true
	}
	return w.Addresses[0], true
}
