package state

import (
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/api/workload"
)

// candidate is an endpoint that can take a connection, and the port that it takes it on.
type candidate struct {
	w      *Workload
	target uint16
	rank   int
}

// candidatesLocked lists the nearest endpoints among those of a service that can take a connection to one of its ports.
func (s *Store) candidatesLocked(from *Workload, svc *Service, port uint16) []candidate {
	var all []candidate
	best := -1
	for _, w := range s.endpoints[svc.Key()] {
		target, ok := targetOf(w, svc, port)
		if !ok || !w.Healthy && !svc.Balance.AllowUnhealthy || w.Capacity == 0 || len(w.Addresses) == 0 || w.Network != s.conf.Network {
			continue
		}
		rank := rankOf(from, w, svc.Balance.Scopes)
		switch svc.Balance.Mode {
		case workload.LoadBalancing_STRICT:
			if rank < len(svc.Balance.Scopes) {
				continue
			}
		case workload.LoadBalancing_FAILOVER:
		default:
			rank = 0
		}
		best = max(best, rank)
		all = append(all, candidate{w, target, rank})
	}
	return slices.DeleteFunc(all, func(c candidate) bool { return c.rank < best })
}

// chooseLocked picks one of the candidates by chance, weighted by capacity.
func (s *Store) chooseLocked(from *Workload, svc *Service, port uint16) (*Workload, uint16, bool) {
	all := s.candidatesLocked(from, svc, port)
	if len(all) == 0 {
		return nil, 0, false
	}
	var total uint64
	for _, c := range all {
		total += uint64(c.w.Capacity)
	}
	at := s.conf.Pick(total)
	for _, c := range all {
		if at < uint64(c.w.Capacity) {
			return c.w, c.target, true
		}
		at -= uint64(c.w.Capacity)
	}
	last := all[len(all)-1]
	return last.w, last.target, true
}

// Choice is an endpoint that a connection may be led to, and where it takes it.
type Choice struct {
	Workload *Workload
	At       netip.AddrPort
}

// Choices lists what Route chooses among for a service's address and port.
func (s *Store) Choices(from *Workload, svc *Service, dialled netip.AddrPort) []Choice {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []Choice
	for _, c := range s.candidatesLocked(from, svc, dialled.Port()) {
		if a, ok := addressFor(c.w, dialled.Addr()); ok {
			out = append(out, Choice{c.w, netip.AddrPortFrom(a, c.target)})
		}
	}
	return out
}

// targetOf is the port of a workload behind a service's port: its own mapping first, the service's else.
func targetOf(w *Workload, svc *Service, port uint16) (uint16, bool) {
	if p, ok := findPort(w.Services[svc.Key()], port); ok && p.Target != 0 {
		return p.Target, true
	}
	if p, ok := svc.port(port); ok && p.Target != 0 && len(w.Services[svc.Key()]) == 0 {
		return p.Target, true
	}
	return 0, false
}

// rankOf counts how many scopes, from the first on, an endpoint shares with the client.
func rankOf(from, to *Workload, scopes []Scope) int {
	for i, scope := range scopes {
		same := false
		switch scope {
		case workload.LoadBalancing_NETWORK:
			same = from.Network == to.Network
		case workload.LoadBalancing_REGION:
			same = from.Region == to.Region
		case workload.LoadBalancing_ZONE:
			same = from.Zone == to.Zone
		case workload.LoadBalancing_SUBZONE:
			same = from.Subzone == to.Subzone
		case workload.LoadBalancing_NODE:
			same = from.Node == to.Node
		case workload.LoadBalancing_CLUSTER:
			same = from.Cluster == to.Cluster
		}
		if !same {
			return i
		}
	}
	return len(scopes)
}

// Target is the port of a workload behind a service's port, for connections that name the service.
func (s *Store) Target(w *Workload, svc *Service, port uint16) (uint16, bool) {
	if _, in := w.Services[svc.Key()]; !in {
		return 0, false
	}
	return targetOf(w, svc, port)
}
