package kinds

import (
	"net/netip"
	"slices"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
)

func (v *validator) virtualService(s *networkingv1alpha3.VirtualService) {
	delegate := len(s.Hosts) == 0 && len(s.Gateways) == 0 && len(s.Http) > 0 && len(s.Tls) == 0 && len(s.Tcp) == 0
	if len(s.Hosts) == 0 && !delegate {
		v.fail("spec", "say in spec.hosts which requests it is for", "VirtualService has no hosts")
	}
	mesh := len(s.Gateways) == 0 || slices.Contains(s.Gateways, "mesh")
	seen := map[string]bool{}
	for i, h := range s.Hosts {
		path := sub("spec.hosts", i)
		v.host(path, h)
		if h == "*" && mesh {
			v.fail(path, "name hosts, or bind it to gateways only", "%q would take all traffic of the mesh", h)
		}
		if seen[strings.ToLower(h)] {
			v.fail(path, "remove it", "host %q is there twice", h)
		}
		seen[strings.ToLower(h)] = true
	}
	if len(s.Http)+len(s.Tls)+len(s.Tcp) == 0 {
		v.fail("spec", "add http, tls or tcp", "VirtualService has no routes")
	}
	for i, r := range s.Http {
		v.httpRoute(sub("spec.http", i), r, delegate)
	}
	for i, r := range s.Tls {
		path := sub("spec.tls", i)
		if len(r.GetMatch()) == 0 {
			v.fail(path, "a TLS route needs sniHosts", "has no match")
		}
		for j, m := range r.GetMatch() {
			if len(m.GetSniHosts()) == 0 {
				v.fail(sub(path+".match", j), "", "has no sniHosts")
			}
			v.blocks(sub(path+".match", j)+".destinationSubnets", m.GetDestinationSubnets())
		}
		v.weighted(path+".route", r.GetRoute())
	}
	for i, r := range s.Tcp {
		path := sub("spec.tcp", i)
		for j, m := range r.GetMatch() {
			v.blocks(sub(path+".match", j)+".destinationSubnets", m.GetDestinationSubnets())
		}
		v.weighted(path+".route", r.GetRoute())
	}
}

func (v *validator) weighted(path string, routes []*networkingv1alpha3.RouteDestination) {
	if len(routes) == 0 {
		v.fail(path, "", "leads nowhere")
	}
	for i, d := range routes {
		v.destination(sub(path, i)+".destination", d.GetDestination())
		if d.GetWeight() < 0 {
			v.fail(sub(path, i)+".weight", "", "is negative")
		}
	}
}

func (v *validator) destination(path string, d *networkingv1alpha3.Destination) {
	if d.GetHost() == "" {
		v.fail(path, "", "has no host")
		return
	}
	if d.Host == "*" {
		v.fail(path+".host", "", "a destination is one host, not all")
	} else {
		v.host(path+".host", d.Host)
	}
	if d.GetPort() != nil {
		v.port(path+".port.number", d.Port.Number)
	}
}

func (v *validator) gateway(s *networkingv1alpha3.Gateway) {
	if len(s.Servers) == 0 {
		v.fail("spec", "add spec.servers", "Gateway has no servers")
	}
	v.labels("spec.selector", s.Selector)
	names := map[string]bool{}
	for i, srv := range s.Servers {
		path := sub("spec.servers", i)
		if srv.GetPort() == nil {
			v.fail(path, "", "has no port")
			continue
		}
		v.port(path+".port.number", srv.Port.Number)
		v.protocol(path+".port.protocol", srv.Port.Protocol)
		switch name := srv.Port.Name; {
		case name == "":
			v.fail(path+".port", "add name", "port has no name")
		case names[name]:
			v.fail(path+".port.name", "names are unique in a Gateway", "%q is there twice", name)
		default:
			names[name] = true
		}
		if len(srv.Hosts) == 0 {
			v.fail(path, "use `hosts: [\"*\"]` for all", "has no hosts")
		}
		for j, h := range srv.Hosts {
			ns, host, scoped := strings.Cut(h, "/")
			if !scoped {
				host = h
			} else if ns == "" {
				v.fail(sub(path+".hosts", j), "write namespace/host", "%q has no namespace", h)
			}
			v.host(sub(path+".hosts", j), host)
		}
		v.serverTLS(path, srv)
	}
}

func (v *validator) serverTLS(path string, srv *networkingv1alpha3.Server) {
	secure := slices.Contains([]string{"HTTPS", "TLS"}, strings.ToUpper(srv.Port.Protocol))
	t := srv.GetTls()
	switch {
	case secure && t == nil:
		v.fail(path, "add tls", "protocol %s needs TLS settings", srv.Port.Protocol)
	case t == nil:
	case !secure && !t.HttpsRedirect:
		v.fail(path+".tls", "use protocol HTTPS or TLS", "protocol %s has no TLS", srv.Port.Protocol)
	case secure && (t.Mode == networkingv1alpha3.ServerTLSSettings_SIMPLE || t.Mode == networkingv1alpha3.ServerTLSSettings_MUTUAL):
		if t.CredentialName == "" && len(t.CredentialNames) == 0 && len(t.TlsCertificates) == 0 && (t.ServerCertificate == "" || t.PrivateKey == "") {
			v.fail(path+".tls", "name a Secret in credentialName", "mode %s has no certificate", t.Mode)
		}
	}
}

func (v *validator) destinationRule(s *networkingv1alpha3.DestinationRule) {
	if s.Host == "" {
		v.fail("spec", "add spec.host", "DestinationRule has no host")
	} else {
		v.host("spec.host", s.Host)
	}
	names := map[string]bool{}
	for i, sb := range s.Subsets {
		path := sub("spec.subsets", i)
		switch {
		case sb.GetName() == "":
			v.fail(path, "", "subset has no name")
		case names[sb.Name]:
			v.fail(path+".name", "", "subset %q is there twice", sb.Name)
		}
		names[sb.GetName()] = true
		v.labels(path+".labels", sb.GetLabels())
	}
}

func (v *validator) serviceEntry(s *networkingv1alpha3.ServiceEntry) {
	if len(s.Hosts) == 0 {
		v.fail("spec", "add spec.hosts", "ServiceEntry has no hosts")
	}
	for i, h := range s.Hosts {
		if h == "*" {
			v.fail(sub("spec.hosts", i), "name a domain", "%q would take all traffic", h)
			continue
		}
		v.host(sub("spec.hosts", i), h)
	}
	v.blocks("spec.addresses", s.Addresses)
	names, numbers := map[string]bool{}, map[uint32]bool{}
	if len(s.Ports) == 0 {
		v.fail("spec", "add spec.ports", "ServiceEntry has no ports")
	}
	for i, p := range s.Ports {
		path := sub("spec.ports", i)
		v.port(path+".number", p.GetNumber())
		if p.GetProtocol() != "" {
			v.protocol(path+".protocol", p.Protocol)
		}
		if p.GetTargetPort() != 0 {
			v.port(path+".targetPort", p.TargetPort)
		}
		if p.GetName() == "" {
			v.fail(path, "", "port has no name")
		} else if names[p.Name] {
			v.fail(path+".name", "", "port name %q is there twice", p.Name)
		}
		if numbers[p.GetNumber()] {
			v.fail(path+".number", "", "port %d is there twice", p.GetNumber())
		}
		names[p.GetName()], numbers[p.GetNumber()] = true, true
	}
	if len(s.Endpoints) > 0 && s.WorkloadSelector != nil {
		v.fail("spec", "keep one of them", "has both endpoints and workloadSelector")
	}
	if s.Resolution == networkingv1alpha3.ServiceEntry_NONE && len(s.Endpoints) > 0 {
		v.fail("spec.endpoints", "use resolution STATIC or DNS", "resolution NONE has no endpoints")
	}
	for i, e := range s.Endpoints {
		path := sub("spec.endpoints", i)
		v.workloadEntry(path, e)
		a := e.GetAddress()
		if _, err := netip.ParseAddr(a); err != nil && s.Resolution == networkingv1alpha3.ServiceEntry_STATIC && a != "" && !strings.HasPrefix(a, "unix://") {
			v.fail(path+".address", "use resolution DNS for host names", "%q is not an IP address, which resolution STATIC needs", a)
		}
	}
}

func (v *validator) workloadEntry(path string, e *networkingv1alpha3.WorkloadEntry) {
	if e.GetAddress() == "" && e.GetNetwork() == "" {
		v.fail(path, "", "has no address")
	}
	if a := e.GetAddress(); a != "" && !strings.HasPrefix(a, "unix://") {
		v.host(path+".address", a)
	}
	for name, n := range e.GetPorts() {
		v.port(join(path+".ports", name), n)
	}
}
