// Package state knows the workloads, services and policies of the mesh and decides where a connection goes.
package state

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/identity"
)

// Workload is one running instance. It is never written after it is made.
type Workload struct {
	*Kin
	*Place
	UID, Name, Hostname string
	Addresses           []netip.Addr
	Node                string
	Capacity            uint32
	Healthy             bool
	// Problem says what of it we do not understand. Nothing is sent to such a workload, and nothing let into it.
	Problem string
}

// Membership puts a workload behind a service.
type Membership struct {
	Service string // "namespace/hostname"
	Ports   []Port
}

// Port maps a service's port to a workload's; Target 0 is a named port, to be found at the endpoint.
type Port struct{ Service, Target uint16 }

// AppTunnel tells how the application takes connections that came through a tunnel.
type AppTunnel struct {
	Proxy bool // with a PROXY protocol header
	Port  uint16
}

// Has reports whether the workload has the address.
func (w *Workload) Has(a netip.Addr) bool { return slices.Contains(w.Addresses, a.Unmap()) }

// Serves reports whether the workload stands behind a service.
func (w *Workload) Serves(svc *Service) bool { return w.membership(svc.Key()) >= 0 }

// membership is the place of a service in Services, or -1.
func (w *Workload) membership(service string) int {
	return slices.IndexFunc(w.Services, func(m Membership) bool { return m.Service == service })
}

// parser reads resources; equal words of them share their bytes.
type parser struct {
	trustDomain string
	words       words
	gateways    gateways
	kin         kinship
	places      places
}

// workload reads one. Only one without a name is an error; what else is wrong is its Problem.
func (p *parser) workload(w *workload.Workload) (*Workload, error) {
	if w.GetUid() == "" {
		return nil, fmt.Errorf("workload %s/%s has no uid", w.GetNamespace(), w.GetName())
	}
	word := p.words.of
	kin := &Kin{
		Namespace: word(w.GetNamespace()), Network: word(w.GetNetwork()), Cluster: word(w.GetClusterId()),
		HBONE: w.GetTunnelProtocol() == workload.TunnelProtocol_HBONE, NativeTunnel: w.GetNativeTunnel(),
		HostNetwork:   w.GetNetworkMode() == workload.NetworkMode_HOST_NETWORK,
		CanonicalName: word(w.GetCanonicalName()), CanonicalRevision: word(w.GetCanonicalRevision()),
		Kind: kindOf(w.GetWorkloadType()), Owner: word(w.GetWorkloadName()),
	}
	out := &Workload{
		Kin: kin, Place: p.places.of(Place{word(w.GetLocality().GetRegion()), word(w.GetLocality().GetZone()), word(w.GetLocality().GetSubzone())}), UID: w.GetUid(), Name: w.GetName(), Hostname: w.GetHostname(), Node: word(w.GetNode()),
		Healthy: w.GetStatus() == workload.WorkloadStatus_HEALTHY, Capacity: 1,
	}
	if strings.HasSuffix(out.UID, out.Name) {
		out.Name = out.UID[len(out.UID)-len(out.Name):]
	}
	if policies := w.GetAuthorizationPolicies(); len(policies) > 0 {
		kin.Policies = make([]string, len(policies))
		for i, name := range policies {
			kin.Policies[i] = word(name)
		}
	}
	kin.Identity = identity.ID{
		TrustDomain: word(cmp.Or(w.GetTrustDomain(), p.trustDomain)), Namespace: kin.Namespace, ServiceAccount: word(cmp.Or(w.GetServiceAccount(), "default")),
	}
	kin.expect = []identity.ID{kin.Identity}
	if c := w.GetCapacity(); c != nil {
		out.Capacity = c.GetValue()
	}
	out.Problem = p.details(out, w)
	out.Kin = p.kin.of(kin)
	return out, nil
}

// details reads what may be of a kind that we do not know. Newer control planes add values; to guess what they mean
// could send plain text, or go around a waypoint.
func (p *parser) details(out *Workload, w *workload.Workload) (problem string) {
	say := func(format string, args ...any) {
		if problem == "" {
			problem = fmt.Sprintf(format, args...)
		}
	}
	if x := w.GetExtensions(); len(x) > 0 {
		say("extension %q is not known", x[0].GetName())
	}
	if t := w.GetTunnelProtocol(); t < workload.TunnelProtocol_NONE || t > workload.TunnelProtocol_LEGACY_ISTIO_MTLS {
		say("tunnel protocol %d is not known", t)
	}
	if m := w.GetNetworkMode(); m < workload.NetworkMode_STANDARD || m > workload.NetworkMode_HOST_NETWORK {
		say("network mode %d is not known", m)
	}
	for _, b := range w.GetAddresses() {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			say("an address of %d bytes", len(b))
			continue
		}
		out.Addresses = append(out.Addresses, a.Unmap())
	}
	var err error
	if out.Waypoint, err = p.gateway(w.GetWaypoint()); err != nil {
		say("waypoint: %v", err)
	}
	if out.NetworkGateway, err = p.gateway(w.GetNetworkGateway()); err != nil {
		say("network gateway: %v", err)
	}
	if t := w.GetApplicationTunnel(); t != nil {
		if proto := t.GetProtocol(); proto < workload.ApplicationTunnel_NONE || proto > workload.ApplicationTunnel_PROXY || t.GetPort() > 65535 {
			say("application tunnel of protocol %d to port %d", proto, t.GetPort())
		}
		out.AppTunnel = &AppTunnel{Proxy: t.GetProtocol() == workload.ApplicationTunnel_PROXY, Port: uint16(t.GetPort())}
	}
	if n := len(w.GetServices()); n > 0 {
		out.Services = make([]Membership, 0, n)
	}
	for service, list := range w.GetServices() {
		ports, err := parsePorts(list.GetPorts())
		if err != nil {
			say("service %s: %v", service, err)
		}
		out.Services = append(out.Services, Membership{p.words.of(service), ports})
	}
	slices.SortFunc(out.Services, func(a, b Membership) int { return strings.Compare(a.Service, b.Service) })
	return problem
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

func findPort(ports []Port, p uint16) (Port, bool) {
	for _, x := range ports {
		if x.Service == p {
			return x, true
		}
	}
	return Port{}, false
}
