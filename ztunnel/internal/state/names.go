package state

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/mesh"
)

// Named gives the addresses behind a host name, in lower case and without a dot at its end, as clients of a namespace
// see it: a service's addresses on our network, or its endpoints' if it has none. It reports whether the mesh is the
// one to ask; a service outside the cluster that has no address of its own is a name of public DNS.
func (s *Store) Named(host, namespace string) ([]netip.Addr, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	inside := strings.HasSuffix(host, "."+mesh.ClusterDomain)
	var svc *Service
	for x := range s.index.byHost.all(host) {
		if len(x.Addresses) > 0 || inside {
			svc = s.prefer(svc, x, namespace)
		}
	}
	if svc == nil {
		for w := range s.index.hosts.all(host) {
			if w.Network == s.conf.Network && len(w.Addresses) > 0 {
				return slices.Clone(w.Addresses), true
			}
		}
		return nil, false
	}
	if len(svc.Addresses) == 0 {
		return s.endpointAddrsLocked(svc), true
	}
	var out []netip.Addr
	for _, v := range svc.Addresses {
		if v.Network == s.conf.Network && v.Block.IsSingleIP() && svc.accepts(v.Block.Addr()) {
			out = append(out, v.Block.Addr())
		}
	}
	return out, true
}

// endpointAddrsLocked lists the addresses of a service's endpoints that take connections.
func (s *Store) endpointAddrsLocked(svc *Service) []netip.Addr {
	var out []netip.Addr
	for _, e := range s.index.endpoints[svc.key] {
		if e.w.Network != s.conf.Network || !e.w.Healthy && !svc.Balance.AllowUnhealthy {
			continue
		}
		for _, a := range e.w.Addresses {
			if svc.accepts(a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// ServiceOf finds a service by host name, preferring a namespace.
func (s *Store) ServiceOf(hostname, namespace string) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var best *Service
	for svc := range s.index.byHost.all(hostname) {
		best = s.prefer(best, svc, namespace)
	}
	return best
}
