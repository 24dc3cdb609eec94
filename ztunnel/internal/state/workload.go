// Package state knows the workloads, services and policies of the mesh and decides where a connection goes.
package state

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/identity"
)

// Workload is one running instance. It is never written after it is made.
type Workload struct {
	UID, Name, Namespace, Hostname, Network string
	Addresses                               []netip.Addr
	Identity                                identity.ID
	HBONE                                   bool // reached through a tunnel
	NativeTunnel                            bool // ends the tunnel itself
	Waypoint                                *Gateway
	NetworkGateway                          *Gateway
	Node, Cluster                           string
	CanonicalName, CanonicalRevision        string
	Kind, Owner                             string // what it is an instance of: "deployment" and its name
	AppTunnel                               *AppTunnel
	Services                                map[string][]Port // by "namespace/hostname"
	Policies                                []string          // "namespace/name", those that select it
	Healthy                                 bool
	Capacity                                uint32
	Region, Zone, Subzone                   string
	HostNetwork                             bool
}

// Port maps a service's port to a workload's; Target 0 is a named port, to be found at the endpoint.
type Port struct{ Service, Target uint16 }

// AppTunnel tells how the application takes connections that came through a tunnel.
type AppTunnel struct {
	Proxy bool // with a PROXY protocol header
	Port  uint16
}

// Gateway is a waypoint or a network's gateway: by host name, or else by address.
type Gateway struct {
	Namespace, Hostname string
	Network             string
	Addr                netip.Addr
	Port                uint16
}

func (g *Gateway) String() string {
	if g.Hostname != "" {
		return g.Namespace + "/" + g.Hostname
	}
	return g.Network + "/" + g.Addr.String()
}

func parseWorkload(w *workload.Workload, trustDomain string) (*Workload, error) {
	out := &Workload{
		UID: w.GetUid(), Name: w.GetName(), Namespace: w.GetNamespace(), Hostname: w.GetHostname(), Network: w.GetNetwork(),
		HBONE: w.GetTunnelProtocol() == workload.TunnelProtocol_HBONE, NativeTunnel: w.GetNativeTunnel(),
		Node: w.GetNode(), Cluster: w.GetClusterId(),
		CanonicalName: w.GetCanonicalName(), CanonicalRevision: w.GetCanonicalRevision(),
		Kind: kindOf(w.GetWorkloadType()), Owner: w.GetWorkloadName(),
		Policies: w.GetAuthorizationPolicies(),
		Healthy:  w.GetStatus() == workload.WorkloadStatus_HEALTHY, Capacity: 1,
		Region: w.GetLocality().GetRegion(), Zone: w.GetLocality().GetZone(), Subzone: w.GetLocality().GetSubzone(),
		HostNetwork: w.GetNetworkMode() == workload.NetworkMode_HOST_NETWORK,
	}
	if out.UID == "" {
		return nil, fmt.Errorf("workload %s/%s has no uid", out.Namespace, out.Name)
	}
	if x := w.GetExtensions(); len(x) > 0 {
		return nil, fmt.Errorf("workload %s: extension %q is not known", out.UID, x[0].GetName())
	}
	out.Identity = identity.ID{TrustDomain: w.GetTrustDomain(), Namespace: w.GetNamespace(), ServiceAccount: w.GetServiceAccount()}
	if out.Identity.TrustDomain == "" {
		out.Identity.TrustDomain = trustDomain
	}
	if out.Identity.ServiceAccount == "" {
		out.Identity.ServiceAccount = "default"
	}
	for _, b := range w.GetAddresses() {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return nil, fmt.Errorf("workload %s: an address of %d bytes", out.UID, len(b))
		}
		out.Addresses = append(out.Addresses, a.Unmap())
	}
	if c := w.GetCapacity(); c != nil {
		out.Capacity = c.GetValue()
	}
	var err error
	if out.Waypoint, err = parseGateway(w.GetWaypoint()); err != nil {
		return nil, fmt.Errorf("workload %s: waypoint: %w", out.UID, err)
	}
	if out.NetworkGateway, err = parseGateway(w.GetNetworkGateway()); err != nil {
		return nil, fmt.Errorf("workload %s: network gateway: %w", out.UID, err)
	}
	if t := w.GetApplicationTunnel(); t != nil {
		if t.GetPort() > 65535 {
			return nil, fmt.Errorf("workload %s: application tunnel to port %d", out.UID, t.GetPort())
		}
		out.AppTunnel = &AppTunnel{Proxy: t.GetProtocol() == workload.ApplicationTunnel_PROXY, Port: uint16(t.GetPort())}
	}
	if n := len(w.GetServices()); n > 0 {
		out.Services = make(map[string][]Port, n)
	}
	for key, list := range w.GetServices() {
		if out.Services[key], err = parsePorts(list.GetPorts()); err != nil {
			return nil, fmt.Errorf("workload %s: service %s: %w", out.UID, key, err)
		}
	}
	return out, nil
}

func kindOf(t workload.WorkloadType) string {
	switch t {
	case workload.WorkloadType_DEPLOYMENT:
		return "deployment"
	case workload.WorkloadType_CRONJOB:
		return "cronjob"
	case workload.WorkloadType_JOB:
		return "job"
	}
	return "pod"
}

func parsePorts(in []*workload.Port) ([]Port, error) {
	out := make([]Port, 0, len(in))
	for _, p := range in {
		if p.GetServicePort() > 65535 || p.GetTargetPort() > 65535 {
			return nil, fmt.Errorf("port %d to %d: above 65535", p.GetServicePort(), p.GetTargetPort())
		}
		out = append(out, Port{uint16(p.GetServicePort()), uint16(p.GetTargetPort())})
	}
	return out, nil
}

func parseGateway(g *workload.GatewayAddress) (*Gateway, error) {
	if g == nil {
		return nil, nil
	}
	if g.GetHboneMtlsPort() > 65535 {
		return nil, fmt.Errorf("port %d is above 65535", g.GetHboneMtlsPort())
	}
	out := &Gateway{Port: uint16(g.GetHboneMtlsPort())}
	switch d := g.GetDestination().(type) {
	case *workload.GatewayAddress_Hostname:
		out.Namespace, out.Hostname = d.Hostname.GetNamespace(), d.Hostname.GetHostname()
	case *workload.GatewayAddress_Address:
		a, ok := netip.AddrFromSlice(d.Address.GetAddress())
		if !ok {
			return nil, fmt.Errorf("an address of %d bytes", len(d.Address.GetAddress()))
		}
		out.Network, out.Addr = d.Address.GetNetwork(), a.Unmap()
	default:
		return nil, fmt.Errorf("neither a host name nor an address")
	}
	return out, nil
}

// Has reports whether the workload has the address.
func (w *Workload) Has(a netip.Addr) bool { return slices.Contains(w.Addresses, a.Unmap()) }
