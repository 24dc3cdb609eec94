package ztunnel

import (
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// DumpWorkload is one workload.
type DumpWorkload struct {
	UID                   string         `json:"uid"`
	Name                  string         `json:"name"`
	Namespace             string         `json:"namespace"`
	IPs                   []netip.Addr   `json:"workloadIps"`
	Hostname              string         `json:"hostname,omitempty"`
	Protocol              string         `json:"protocol"`
	Network               string         `json:"network,omitempty"`
	NetworkMode           string         `json:"networkMode"`
	TrustDomain           string         `json:"trustDomain,omitempty"`
	ServiceAccount        string         `json:"serviceAccount,omitempty"`
	Waypoint              *DumpGateway   `json:"waypoint,omitempty"`
	NetworkGateway        *DumpGateway   `json:"networkGateway,omitempty"`
	WorkloadName          string         `json:"workloadName,omitempty"`
	WorkloadType          string         `json:"workloadType,omitempty"`
	CanonicalName         string         `json:"canonicalName,omitempty"`
	CanonicalRevision     string         `json:"canonicalRevision,omitempty"`
	ClusterID             string         `json:"clusterId"`
	Node                  string         `json:"node,omitempty"`
	NativeTunnel          bool           `json:"nativeTunnel,omitempty"`
	ApplicationTunnel     *DumpAppTunnel `json:"applicationTunnel,omitempty"`
	Status                string         `json:"status"`
	Capacity              uint32         `json:"capacity"`
	AuthorizationPolicies []string       `json:"authorizationPolicies,omitempty"`
	Services              []string       `json:"services,omitempty"`
	Locality              *DumpLocality  `json:"locality,omitempty"`
	// Problem says what of it is not understood. Istio's has no such key.
	Problem string `json:"problem,omitempty"`
}

// DumpGateway is a waypoint or a network's gateway.
type DumpGateway struct {
	Destination string `json:"destination"`
	Port        uint16 `json:"hboneMtlsPort"`
}

// DumpAppTunnel tells how the application takes connections that came through a tunnel.
type DumpAppTunnel struct {
	Protocol string  `json:"protocol"`
	Port     *uint16 `json:"port"`
}

// DumpLocality is where a workload runs.
type DumpLocality struct {
	Region  string `json:"region"`
	Zone    string `json:"zone"`
	Subzone string `json:"subzone"`
}

// DumpService is one service.
type DumpService struct {
	Name            string                  `json:"name"`
	Namespace       string                  `json:"namespace"`
	Hostname        string                  `json:"hostname"`
	VIPs            []string                `json:"vips"`
	CIDRs           []string                `json:"cidrVips,omitempty"`
	Ports           map[uint16]uint16       `json:"ports"`
	Endpoints       map[string]DumpEndpoint `json:"endpoints"`
	SubjectAltNames []string                `json:"subjectAltNames"`
	Waypoint        *DumpGateway            `json:"waypoint,omitempty"`
	LoadBalancer    *DumpBalancer           `json:"loadBalancer,omitempty"`
	IPFamilies      string                  `json:"ipFamilies,omitempty"`
	Canonical       bool                    `json:"canonical"`
	Visibility      string                  `json:"visibility"`
	// Problem says what of it is not understood. Istio's has no such key.
	Problem string `json:"problem,omitempty"`
}

// DumpEndpoint is a workload behind a service.
type DumpEndpoint struct {
	WorkloadUID string            `json:"workloadUid"`
	Port        map[uint16]uint16 `json:"port"`
	Status      string            `json:"status"`
}

// DumpBalancer says which endpoints are preferred.
type DumpBalancer struct {
	Preferences []string `json:"routingPreferences"`
	Mode        string   `json:"mode"`
	Health      string   `json:"healthPolicy"`
}

func dumpWorkload(w *state.Workload) DumpWorkload {
	out := DumpWorkload{
		UID: w.UID, Name: w.Name, Namespace: w.Namespace, IPs: w.Addresses, Hostname: w.Hostname, Protocol: "TCP", Network: w.Network, NetworkMode: "Standard",
		TrustDomain: w.Identity.TrustDomain, ServiceAccount: w.Identity.ServiceAccount, Waypoint: dumpGateway(w.Waypoint), NetworkGateway: dumpGateway(w.NetworkGateway),
		WorkloadName: w.Owner, WorkloadType: w.Kind, CanonicalName: w.CanonicalName, CanonicalRevision: w.CanonicalRevision,
		ClusterID: w.Cluster, Node: w.Node, NativeTunnel: w.NativeTunnel, Status: dumpStatus(w), Capacity: w.Capacity,
		AuthorizationPolicies: w.Policies, Problem: w.Problem,
	}
	if out.IPs == nil {
		out.IPs = []netip.Addr{} // a list for whoever reads it
	}
	if w.HBONE {
		out.Protocol = "HBONE"
	}
	if w.HostNetwork {
		out.NetworkMode = "HostNetwork"
	}
	for _, m := range w.Services {
		out.Services = append(out.Services, m.Service)
	}
	if w.Region+w.Zone+w.Subzone != "" {
		out.Locality = &DumpLocality{w.Region, w.Zone, w.Subzone}
	}
	if t := w.AppTunnel; t != nil {
		out.ApplicationTunnel = &DumpAppTunnel{Protocol: "NONE"}
		if t.Proxy {
			out.ApplicationTunnel.Protocol = "PROXY"
		}
		if t.Port != 0 {
			out.ApplicationTunnel.Port = &t.Port
		}
	}
	return out
}

func dumpStatus(w *state.Workload) string {
	if w.Healthy {
		return "Healthy"
	}
	return "Unhealthy"
}

func dumpGateway(g *state.Gateway) *DumpGateway {
	if g == nil {
		return nil
	}
	return &DumpGateway{g.String(), g.Port}
}

func dumpService(s *state.Service, endpoints []*state.Workload) DumpService {
	out := DumpService{
		Name: s.Name, Namespace: s.Namespace, Hostname: s.Hostname, VIPs: []string{}, Ports: dumpPorts(s.Ports),
		Endpoints: map[string]DumpEndpoint{}, SubjectAltNames: []string{}, Waypoint: dumpGateway(s.Waypoint), LoadBalancer: dumpBalancer(s.Balance),
		Canonical: s.Canonical, Visibility: "Public", Problem: s.Problem,
	}
	switch s.Families {
	case workload.IPFamilies_IPV4_ONLY:
		out.IPFamilies = "IPv4"
	case workload.IPFamilies_IPV6_ONLY:
		out.IPFamilies = "IPv6"
	case workload.IPFamilies_DUAL:
		out.IPFamilies = "Dual"
	}
	if s.Private {
		out.Visibility = "Namespace"
	}
	for _, v := range s.Addresses {
		if v.Block.IsSingleIP() {
			out.VIPs = append(out.VIPs, v.Network+"/"+v.Block.Addr().String())
		} else {
			out.CIDRs = append(out.CIDRs, v.Network+"/"+v.Block.String())
		}
	}
	for _, w := range endpoints {
		e := DumpEndpoint{WorkloadUID: w.UID, Port: map[uint16]uint16{}, Status: dumpStatus(w)}
		for _, m := range w.Services {
			if m.Service == s.Key() {
				e.Port = dumpPorts(m.Ports)
			}
		}
		out.Endpoints[w.UID] = e
	}
	for _, id := range s.SANs {
		out.SubjectAltNames = append(out.SubjectAltNames, id.String())
	}
	return out
}

func dumpPorts(ports []state.Port) map[uint16]uint16 {
	out := make(map[uint16]uint16, len(ports))
	for _, p := range ports {
		out[p.Service] = p.Target
	}
	return out
}

// dumpBalancer is nil for what a service has that says nothing of load balancing.
func dumpBalancer(b state.Balance) *DumpBalancer {
	out := &DumpBalancer{Preferences: []string{}, Mode: "Standard", Health: "OnlyHealthy"}
	for _, scope := range b.Scopes {
		out.Preferences = append(out.Preferences, title(scope.String()))
	}
	if b.Mode != workload.LoadBalancing_UNSPECIFIED_MODE {
		out.Mode = title(b.Mode.String())
	}
	if b.AllowUnhealthy {
		out.Health = "AllowAll"
	}
	if len(b.Scopes) == 0 && b.Mode == workload.LoadBalancing_UNSPECIFIED_MODE && !b.AllowUnhealthy {
		return nil
	}
	return out
}

// title is a word of the protocol as dumps spell it: ZONE is Zone.
func title(word string) string { return word[:1] + strings.ToLower(word[1:]) }
