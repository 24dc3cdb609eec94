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
	if svc := s.prefer(s.byHost[host], namespace); svc != nil {
		var out []netip.Addr
		for _, v := range svc.Addresses {
			if v.Network == s.conf.Network && v.Block.IsSingleIP() {
				out = append(out, v.Block.Addr())
			}
		}
		switch {
		case len(svc.Addresses) > 0:
			return out, true
		case host == mesh.ClusterDomain || strings.HasSuffix(host, "."+mesh.ClusterDomain):
			return s.endpointAddrsLocked(svc), true
		}
		return nil, false
	}
	for _, w := range s.hosts[host] {
		if w.Network == s.conf.Network && len(w.Addresses) > 0 {
			return slices.Clone(w.Addresses), true
		}
	}
	return nil, false
}

// endpointAddrsLocked lists the addresses of a service's endpoints that take connections.
func (s *Store) endpointAddrsLocked(svc *Service) []netip.Addr {
	var out []netip.Addr
	for _, w := range s.endpoints[svc.Key()] {
		if w.Network == s.conf.Network && (w.Healthy || svc.Balance.AllowUnhealthy) {
			out = append(out, w.Addresses...)
		}
	}
	return out
}

// ServiceOf finds a service by host name, preferring a namespace.
func (s *Store) ServiceOf(hostname, namespace string) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if svc := s.services[namespace+"/"+hostname]; svc != nil {
		return svc
	}
	return s.prefer(s.byHost[hostname], namespace)
}
