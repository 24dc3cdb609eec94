package state

import (
	"fmt"
	"net/netip"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/identity"
)

// Service is a name, and usually addresses, behind which workloads stand. It is never written after it is made.
type Service struct {
	Name, Namespace, Hostname string
	Addresses                 []VIP
	Ports                     []Port
	SANs                      []identity.ID // accepted besides an endpoint's own
	Waypoint                  *Gateway
	Weighted                  []WeightedGateway // instead of Waypoint, where they have any weight
	Balance                   Balance
	Families                  Families
	Canonical                 bool
	Private                   bool // only for clients of its own namespace
	// Problem says what of it we do not understand. No connection is led to such a service.
	Problem string

	key string
}

// VIP is an address of a service, or a block of them.
type VIP struct {
	Network string
	Block   netip.Prefix
}

// Scope is how near an endpoint may have to be.
type Scope = workload.LoadBalancing_Scope

// Families are the IP families under which a service is reached.
type Families = workload.IPFamilies

// Balance says which endpoints are preferred.
type Balance struct {
	Mode           workload.LoadBalancing_Mode
	Scopes         []Scope
	AllowUnhealthy bool
}

// Key is the name of the service among resources: "namespace/hostname".
func (s *Service) Key() string { return s.key }

// service reads one. Only one without a name is an error; what else is wrong is its Problem.
func (p *parser) service(s *workload.Service) (*Service, error) {
	if s.GetHostname() == "" {
		return nil, fmt.Errorf("service %s/%s has no host name", s.GetNamespace(), s.GetName())
	}
	word := p.words.of
	out := &Service{
		Name: word(s.GetName()), Namespace: word(s.GetNamespace()), Hostname: word(s.GetHostname()), Canonical: s.GetCanonical(), Families: s.GetIpFamilies(),
		Private: s.GetVisibility() != workload.Service_PUBLIC, // one that we do not know hides more, not less
		key:     word(s.GetNamespace() + "/" + s.GetHostname()),
	}
	out.Problem = p.serviceDetails(out, s)
	return out, nil
}

func (p *parser) serviceDetails(out *Service, s *workload.Service) (problem string) {
	say := func(format string, args ...any) {
		if problem == "" {
			problem = fmt.Sprintf(format, args...)
		}
	}
	if x := s.GetExtensions(); len(x) > 0 {
		say("extension %q is not known", x[0].GetName())
	}
	if f := out.Families; f < workload.IPFamilies_AUTOMATIC || f > workload.IPFamilies_DUAL {
		say("IP families %d are not known", f)
	}
	for _, a := range s.GetAddresses() {
		v, err := p.vip(a)
		if err != nil {
			say("%v", err)
			continue
		}
		out.Addresses = append(out.Addresses, v)
	}
	var err error
	if out.Ports, err = parsePorts(s.GetPorts()); err != nil {
		say("%v", err)
	}
	for _, san := range s.GetSubjectAltNames() {
		if id, err := identity.Parse(san); err == nil { // another name, which no identity of ours has, admits nobody
			out.SANs = append(out.SANs, id)
		}
	}
	if out.Waypoint, err = p.gateway(s.GetWaypoint()); err != nil {
		say("waypoint: %v", err)
	}
	for _, w := range s.GetWeightedWaypoints() {
		g, err := p.gateway(w.GetDestination())
		if err != nil || g == nil {
			say("weighted waypoint: %v", err)
			continue
		}
		out.Weighted = append(out.Weighted, WeightedGateway{g, w.GetWeight()})
	}
	if lb := s.GetLoadBalancing(); lb != nil {
		out.Balance = Balance{lb.GetMode(), lb.GetRoutingPreference(), lb.GetHealthPolicy() == workload.LoadBalancing_ALLOW_ALL}
	}
	if m := out.Balance.Mode; m < workload.LoadBalancing_UNSPECIFIED_MODE || m > workload.LoadBalancing_PASSTHROUGH {
		say("load balancing mode %d is not known", m)
	}
	for _, scope := range out.Balance.Scopes {
		if scope <= workload.LoadBalancing_UNSPECIFIED_SCOPE || scope > workload.LoadBalancing_NETWORK {
			say("load balancing scope %d is not known", scope)
		}
	}
	return problem
}

func (p *parser) vip(a *workload.NetworkAddress) (VIP, error) {
	addr, ok := netip.AddrFromSlice(a.GetAddress())
	if !ok {
		return VIP{}, fmt.Errorf("an address of %d bytes", len(a.GetAddress()))
	}
	addr = addr.Unmap()
	bits := uint32(addr.BitLen())
	if a.Length != nil {
		bits = a.GetLength()
	}
	if bits > uint32(addr.BitLen()) {
		return VIP{}, fmt.Errorf("address %s/%d", addr, bits)
	}
	return VIP{p.words.of(a.GetNetwork()), netip.PrefixFrom(addr, int(bits)).Masked()}, nil
}

func (s *Service) port(p uint16) (Port, bool) { return findPort(s.Ports, p) }

// accepts reports whether the service is reached under an address's family.
func (s *Service) accepts(a netip.Addr) bool {
	switch s.Families {
	case workload.IPFamilies_IPV4_ONLY:
		return a.Is4()
	case workload.IPFamilies_IPV6_ONLY:
		return a.Is6()
	}
	return true
}
