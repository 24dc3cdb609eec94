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
	Balance                   Balance
	Canonical                 bool
	Private                   bool // only for clients of its own namespace
}

// VIP is an address of a service, or a block of them.
type VIP struct {
	Network string
	Block   netip.Prefix
}

// Scope is how near an endpoint may have to be.
type Scope = workload.LoadBalancing_Scope

// Balance says which endpoints are preferred.
type Balance struct {
	Mode           workload.LoadBalancing_Mode
	Scopes         []Scope
	AllowUnhealthy bool
}

// Key is the name of the service among resources: "namespace/hostname".
func (s *Service) Key() string { return s.Namespace + "/" + s.Hostname }

func parseService(s *workload.Service) (*Service, error) {
	out := &Service{
		Name: s.GetName(), Namespace: s.GetNamespace(), Hostname: s.GetHostname(), Canonical: s.GetCanonical(),
		Private: s.GetVisibility() == workload.Service_NAMESPACE,
	}
	if x := s.GetExtensions(); len(x) > 0 {
		return nil, fmt.Errorf("service %s: extension %q is not known", out.Key(), x[0].GetName())
	}
	for _, a := range s.GetAddresses() {
		addr, ok := netip.AddrFromSlice(a.GetAddress())
		if !ok {
			return nil, fmt.Errorf("service %s: an address of %d bytes", out.Key(), len(a.GetAddress()))
		}
		addr = addr.Unmap()
		bits := uint32(addr.BitLen())
		if a.Length != nil {
			bits = a.GetLength()
		}
		if bits > uint32(addr.BitLen()) {
			return nil, fmt.Errorf("service %s: address %s/%d", out.Key(), addr, bits)
		}
		out.Addresses = append(out.Addresses, VIP{a.GetNetwork(), netip.PrefixFrom(addr, int(bits)).Masked()})
	}
	var err error
	if out.Ports, err = parsePorts(s.GetPorts()); err != nil {
		return nil, fmt.Errorf("service %s: %w", out.Key(), err)
	}
	for _, san := range s.GetSubjectAltNames() {
		id, err := identity.Parse(san)
		if err != nil {
			continue // a name that no identity of ours can have admits nobody
		}
		out.SANs = append(out.SANs, id)
	}
	gw := s.GetWaypoint()
	if ws := s.GetWeightedWaypoints(); gw == nil && len(ws) > 0 {
		gw = ws[0].GetDestination()
	}
	if out.Waypoint, err = parseGateway(gw); err != nil {
		return nil, fmt.Errorf("service %s: waypoint: %w", out.Key(), err)
	}
	if lb := s.GetLoadBalancing(); lb != nil {
		out.Balance = Balance{lb.GetMode(), lb.GetRoutingPreference(), lb.GetHealthPolicy() == workload.LoadBalancing_ALLOW_ALL}
	}
	return out, nil
}

func (s *Service) port(p uint16) (Port, bool) { return findPort(s.Ports, p) }

func findPort(ports []Port, p uint16) (Port, bool) {
	for _, x := range ports {
		if x.Service == p {
			return x, true
		}
	}
	return Port{}, false
}
