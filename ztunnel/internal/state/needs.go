package state

import "net/netip"

// Needs names what Route has to know to decide on a connection, for a control plane that is asked on demand: the
// address that was dialled, the service behind it with its endpoints, and the waypoints of either with theirs. What
// arrives may need more.
func (s *Store) Needs(from *Workload, to netip.Addr) []string {
	to = to.Unmap()
	s.mu.RLock()
	defer s.mu.RUnlock()
	svc := s.vipLocked(to, from.Namespace)
	w := s.index.workload(address{s.conf.Network, to})
	out := []string{AddressName(s.conf.Network, to)}
	switch {
	case svc != nil:
		out = append(out, svc.key)
		out = s.gatewayNeedsLocked(out, svc.Waypoint)
		for _, g := range svc.Weighted {
			out = s.gatewayNeedsLocked(out, g.Gateway)
		}
	case w != nil:
		out = s.gatewayNeedsLocked(out, w.Waypoint)
	}
	return out
}

func (s *Store) gatewayNeedsLocked(out []string, g *Gateway) []string {
	if g == nil {
		return out
	}
	out = append(out, g.key)
	if svc, _ := s.index.gateway(g); svc != nil && svc.key != g.key {
		out = append(out, svc.key)
	}
	return out
}

// AddressName is the alias of an address's resource.
func AddressName(network string, a netip.Addr) string { return network + "/" + a.Unmap().String() }

// Unanswered is the refusal of a connection on which nothing could be decided, because what it takes was not told.
func Unanswered(to netip.AddrPort, err error) Route {
	return Route{To: to}.refuse(why{cause: unanswered, detail: err.Error()})
}
