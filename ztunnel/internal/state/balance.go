package state

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/api/workload"
)

// purpose says what an endpoint is wanted for.
type purpose bool

const (
	ordinary   purpose = false // by a client of the service
	asWaypoint purpose = true  // as a waypoint, which the service need not name a port for
)

// exclusion is why an endpoint cannot take a connection.
type exclusion uint8

const (
	fit exclusion = iota
	notUnderstood
	otherNetwork
	unhealthy
	noCapacity
	noPort
	withoutAddress
	tooFar
	exclusions // how many there are
)

// judgeLocked tells whether an endpoint can take a connection, on which of its ports, and how near it is.
func (s *Store) judgeLocked(from *Workload, svc *Service, to netip.AddrPort, e endpoint, p purpose) (target uint16, rank int, ex exclusion) {
	w := e.w
	switch {
	case w.Problem != "":
		return 0, 0, notUnderstood
	case w.Network != s.conf.Network:
		return 0, 0, otherNetwork
	case !w.Healthy && !svc.Balance.AllowUnhealthy:
		return 0, 0, unhealthy
	case w.Capacity == 0:
		return 0, 0, noCapacity
	case len(w.Addresses) == 0 && w.Hostname == "", len(w.Addresses) > 0 && !svc.addressOf(w, to.Addr()).IsValid():
		return 0, 0, withoutAddress
	}
	target, ok := targetOf(e, svc, to.Port(), p)
	if !ok {
		return 0, 0, noPort
	}
	switch svc.Balance.Mode {
	case workload.LoadBalancing_STRICT:
		if rank, all := rankOf(from, w, svc.Balance.Scopes); all {
			return target, rank, fit
		}
		return 0, 0, tooFar
	case workload.LoadBalancing_FAILOVER:
		rank, _ = rankOf(from, w, svc.Balance.Scopes)
	}
	return target, rank, fit
}

// chooseLocked picks one of the nearest endpoints that can take a connection by chance, weighted by capacity.
func (s *Store) chooseLocked(from *Workload, svc *Service, to netip.AddrPort, p purpose) (endpoint, uint16, bool) {
	best, total := -1, uint64(0)
	all := s.index.endpoints[svc.key]
	for _, e := range all {
		_, rank, ex := s.judgeLocked(from, svc, to, e, p)
		if ex != fit || rank < best {
			continue
		}
		if rank > best {
			best, total = rank, 0
		}
		total += uint64(e.w.Capacity)
	}
	if best < 0 {
		return endpoint{}, 0, false
	}
	at := s.conf.Pick(total)
	for _, e := range all {
		target, rank, ex := s.judgeLocked(from, svc, to, e, p)
		if ex != fit || rank != best {
			continue
		}
		if at < uint64(e.w.Capacity) {
			return e, target, true
		}
		at -= uint64(e.w.Capacity)
	}
	return endpoint{}, 0, false
}

// excludedLocked says why no endpoint of a service can take a connection.
func (s *Store) excludedLocked(svc *Service, to netip.AddrPort, p purpose) string {
	all := s.index.endpoints[svc.key]
	if len(all) == 0 {
		return "service " + svc.key + " has no endpoint"
	}
	var n [exclusions]int
	var one [exclusions]*Workload
	for _, e := range all {
		_, _, ex := s.judgeLocked(e.w, svc, to, e, p)
		if ex == fit {
			ex = tooFar // itself it is near enough to
		}
		n[ex]++
		one[ex] = e.w
	}
	var parts []string
	for ex, count := range n {
		if count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count, exclusion(ex).text(one[ex], to)))
		}
	}
	return fmt.Sprintf("service %s has %d endpoint(s): %s", svc.key, len(all), strings.Join(parts, ", "))
}

func (ex exclusion) text(w *Workload, to netip.AddrPort) string {
	switch ex {
	case notUnderstood:
		return "not understood (" + w.Problem + ")"
	case otherNetwork:
		return elsewhere(w)
	case unhealthy:
		return "unhealthy"
	case noCapacity:
		return "with capacity 0"
	case noPort:
		return fmt.Sprintf("without a port for %d", to.Port())
	case withoutAddress:
		return "without an address of the service's IP family"
	case tooFar:
		return "too far away for its traffic policy"
	}
	return "fit"
}

// elsewhere says why a workload of another network is not reached.
func elsewhere(w *Workload) string {
	if w.NetworkGateway == nil {
		return fmt.Sprintf("in network %q, to which no gateway is known", w.Network)
	}
	return fmt.Sprintf("in network %q, behind gateway %s, through which this proxy does not go", w.Network, w.NetworkGateway)
}

// Choice is an endpoint that a connection may be led to, and where it takes it.
type Choice struct {
	Workload *Workload
	At       netip.AddrPort // without an address if the endpoint has a host name only
}

// Choices lists what Route chooses among for a service's address and port.
func (s *Store) Choices(from *Workload, svc *Service, dialled netip.AddrPort) []Choice {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []Choice
	best := -1
	for _, e := range s.index.endpoints[svc.key] {
		target, rank, ex := s.judgeLocked(from, svc, dialled, e, ordinary)
		if ex != fit || rank < best {
			continue
		}
		if rank > best {
			best, out = rank, out[:0]
		}
		out = append(out, Choice{e.w, netip.AddrPortFrom(svc.addressOf(e.w, dialled.Addr()), target)})
	}
	return out
}

// targetOf is the port of an endpoint behind a service's port: its own mapping first, the service's else.
func targetOf(e endpoint, svc *Service, port uint16, p purpose) (uint16, bool) {
	onService, offered := svc.port(port)
	if !offered && (!bool(p) || e.w.AppTunnel == nil) {
		return 0, false
	}
	if own, ok := findPort(e.w.Services[e.at].Ports, port); ok && own.Target != 0 {
		return own.Target, true
	}
	if onService.Target != 0 {
		return onService.Target, true
	}
	// The application behind a tunnel of its own knows what the port means.
	return port, e.w.AppTunnel != nil && e.w.AppTunnel.Port != 0
}

// rankOf counts how many scopes, from the first on, an endpoint shares with the client, and whether it is all. Where
// the network comes first, one in it is nearer than any of another, among which the other scopes decide.
func rankOf(from, to *Workload, scopes []Scope) (rank int, all bool) {
	networkFirst := len(scopes) > 0 && scopes[0] == workload.LoadBalancing_NETWORK
	shared, bonus := 0, 0
	for i, scope := range scopes {
		if shares(from, to, scope) {
			if shared++; networkFirst && i == 0 {
				bonus = len(scopes) - 1
			}
		} else if !networkFirst || i > 0 {
			break
		}
	}
	return shared + bonus, shared == len(scopes)
}

func shares(a, b *Workload, scope Scope) bool {
	switch scope {
	case workload.LoadBalancing_NETWORK:
		return a.Network == b.Network
	case workload.LoadBalancing_REGION:
		return a.Region == b.Region
	case workload.LoadBalancing_ZONE:
		return a.Zone == b.Zone
	case workload.LoadBalancing_SUBZONE:
		return a.Subzone == b.Subzone
	case workload.LoadBalancing_NODE:
		return a.Node == b.Node
	case workload.LoadBalancing_CLUSTER:
		return a.Cluster == b.Cluster
	}
	return false
}

// Target is the port of a workload behind a service's port, for connections that name the service.
func (s *Store) Target(w *Workload, svc *Service, port uint16) (uint16, bool) {
	at := w.membership(svc.key)
	if at < 0 {
		return 0, false
	}
	return targetOf(endpoint{w, int32(at)}, svc, port, ordinary)
}

// ServiceAt tells for which of a workload's services a connection came to one of its ports, to report it: the one that
// the client names, if the workload is behind it, else the first that leads to that port. It may be nil.
func (s *Store) ServiceAt(w *Workload, named string, port uint16) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var at *Service
	for i, m := range w.Services {
		svc := s.index.services[m.Service]
		switch {
		case svc == nil:
		case svc.Hostname == named:
			return svc
		case at == nil && svc.leadsTo(endpoint{w, int32(i)}, port):
			at = svc
		}
	}
	return at
}

func (s *Service) leadsTo(e endpoint, port uint16) bool {
	for _, p := range s.Ports {
		if target, ok := targetOf(e, s, p.Service, ordinary); ok && target == port {
			return true
		}
	}
	return false
}

// addressOf chooses an address of an endpoint: the one that was dialled, else one of the dialled family, else another;
// always of a family under which the service is reached. It is invalid if the endpoint has none.
func (s *Service) addressOf(w *Workload, dialled netip.Addr) (best netip.Addr) {
	for _, a := range w.Addresses {
		switch {
		case s != nil && !s.accepts(a):
		case a == dialled:
			return a
		case !best.IsValid(), a.Is4() == dialled.Is4() && best.Is4() != dialled.Is4():
			best = a
		}
	}
	return best
}
