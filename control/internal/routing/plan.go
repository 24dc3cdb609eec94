package routing

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/collection"
)

// Plan is everything that one proxy must know, but for what stands behind names: backends and secrets are derived from
// Backends and Secrets, so that a pod that comes or goes does not make a plan anew.
type Plan struct {
	Proxy     *Proxy
	Listeners []*l7.Listener
	Routes    []*l7.Route
	Backends  []Ref
	Secrets   []SecretRef
	Problems  []Problem
}

func samePlan(x, y *Plan) bool {
	return sameProxy(x.Proxy, y.Proxy) &&
		slices.EqualFunc(x.Listeners, y.Listeners, func(a, b *l7.Listener) bool { return proto.Equal(a, b) }) &&
		slices.EqualFunc(x.Routes, y.Routes, func(a, b *l7.Route) bool { return proto.Equal(a, b) }) &&
		slices.Equal(x.Backends, y.Backends) && slices.Equal(x.Secrets, y.Secrets) && slices.Equal(x.Problems, y.Problems)
}

// server is one server of a Gateway with what VirtualServices are matched against.
type server struct {
	gateway  *networkingv1.Gateway
	number   uint32
	hosts    []scopedHost
	redirect bool
}

// scopedHost is "namespace/host" of a server: only VirtualServices of that namespace may use the host; "" means any.
type scopedHost struct{ namespace, host string }

// planner collects one plan.
type planner struct {
	*builder
	r    *collection.Read
	plan *Plan

	sets     map[string][]*server         // by route set
	order    []string                     // of sets
	protocol map[uint32]l7.Protocol       // of bound ports
	claimed  map[uint32]map[string]string // bound port → host → who ends TLS for it
	refs     map[string]struct{}
}

func (b *builder) plan(r *collection.Read, p *Proxy) (*Plan, bool) {
	x := &planner{
		builder: b, r: r, plan: &Plan{Proxy: p}, sets: map[string][]*server{},
		protocol: map[uint32]l7.Protocol{}, claimed: map[uint32]map[string]string{}, refs: map[string]struct{}{},
	}
	for _, g := range p.Gateways {
		for i, s := range g.Spec.GetServers() {
			x.server(g, i, s)
		}
	}
	for _, g := range p.Kube {
		x.kube(g)
	}
	for _, set := range x.order {
		x.routes(set)
	}
	return x.plan, true
}

func (x *planner) problem(kind, namespace, name, format string, args ...any) {
	x.plan.Problems = append(x.plan.Problems, Problem{kind + "/" + namespace + "/" + name, fmt.Sprintf(format, args...)})
}

// server adds the listeners of one server of a Gateway.
func (x *planner) server(g *networkingv1.Gateway, i int, s *networking.Server) {
	no := func(format string, args ...any) {
		x.problem("Gateway", g.Namespace, g.Name, "server %d: "+format, append([]any{i}, args...)...)
	}
	number := s.GetPort().GetNumber()
	if number == 0 || number > 65535 {
		no("port %d is not a port", number)
		return
	}
	sv := &server{gateway: g, number: number, redirect: s.GetTls().GetHttpsRedirect()}
	protocol, ok := protocolOf(s)
	if !ok {
		no("protocol %q is not served", s.GetPort().GetProtocol())
		return
	}
	var tls *l7.TLS
	if protocol == l7.Protocol_HTTPS || protocol == l7.Protocol_TLS_TERMINATE {
		if tls, ok = x.tls(s.GetTls(), no); !ok {
			return
		}
	}
	for _, h := range s.GetHosts() {
		ns, host, scoped := strings.Cut(h, "/")
		switch {
		case !scoped:
			ns, host = "", h
		case ns == "*":
			ns = ""
		case ns == ".":
			ns = g.Namespace
		}
		sv.hosts = append(sv.hosts, scopedHost{ns, strings.ToLower(host)})
	}
	var streams []*l7.StreamRule
	if protocol != l7.Protocol_HTTP && protocol != l7.Protocol_HTTPS {
		streams = x.streams(sv, protocol == l7.Protocol_TLS_PASSTHROUGH)
	}
	for _, port := range x.plan.Proxy.ports(number) {
		if have, ok := x.protocol[port]; ok && (have != protocol && !(secure(have) && secure(protocol)) || protocol == l7.Protocol_TCP) {
			no("port %d already serves %s for an older server", number, have)
			continue
		}
		x.protocol[port] = protocol
		hosts := x.claim(port, protocol, sv, g.Namespace+"/"+g.Name, no)
		if len(hosts) == 0 {
			continue
		}
		if protocol != l7.Protocol_HTTP && protocol != l7.Protocol_HTTPS {
			x.listen(port, i, sv, &l7.Listener{Protocol: protocol, Hosts: hosts, Tls: tls, Bind: bindAddress(s.GetBind()), Streams: streams})
			continue
		}
		// Servers that write different numbers for one bound port, such as 80 and 8080, share its routes.
		set := fmt.Sprintf("http.%d", port)
		if protocol == l7.Protocol_HTTPS {
			set = fmt.Sprintf("https.%d.%s.%s.%s", number, s.GetPort().GetName(), g.Name, g.Namespace)
		}
		if !slices.Contains(x.order, set) {
			x.order = append(x.order, set)
		}
		if !slices.Contains(x.sets[set], sv) {
			x.sets[set] = append(x.sets[set], sv)
		}
		x.listen(port, i, sv, &l7.Listener{Protocol: protocol, Hosts: hosts, Tls: tls, Bind: bindAddress(s.GetBind()), Routes: set})
	}
}

func (x *planner) listen(port uint32, i int, sv *server, l *l7.Listener) {
	g := sv.gateway
	l.Name = fmt.Sprintf("%s/%d/%s/%s/%d", x.plan.Proxy.Name, port, g.Namespace, g.Name, i)
	l.Proxy, l.Port, l.ServicePort, l.Gateway = x.plan.Proxy.Name, port, sv.number, g.Namespace+"/"+g.Name
	x.plan.Listeners = append(x.plan.Listeners, l)
}

// protocolOf is how a server is served; false for protocols that no gateway serves.
func protocolOf(s *networking.Server) (l7.Protocol, bool) {
	passthrough := s.GetTls().GetMode() == networking.ServerTLSSettings_PASSTHROUGH && s.GetTls() != nil
	switch strings.ToUpper(s.GetPort().GetProtocol()) {
	case "HTTP", "HTTP2", "GRPC", "GRPC-WEB":
		return l7.Protocol_HTTP, true
	case "HTTPS":
		if passthrough {
			return l7.Protocol_TLS_PASSTHROUGH, true
		}
		return l7.Protocol_HTTPS, true
	case "TLS":
		if passthrough {
			return l7.Protocol_TLS_PASSTHROUGH, true
		}
		return l7.Protocol_TLS_TERMINATE, true
	case "TCP", "MONGO", "MYSQL", "REDIS":
		return l7.Protocol_TCP, true
	}
	return 0, false
}

// secure protocols share a port: the name in TLS tells them apart.
func secure(p l7.Protocol) bool {
	return p == l7.Protocol_HTTPS || p == l7.Protocol_TLS_PASSTHROUGH || p == l7.Protocol_TLS_TERMINATE
}

// claim gives the hosts that a listener serves. One TLS name of a port belongs to the oldest server that asks for it.
func (x *planner) claim(port uint32, protocol l7.Protocol, sv *server, who string, no func(string, ...any)) []string {
	var hosts []string
	if x.claimed[port] == nil {
		x.claimed[port] = map[string]string{}
	}
	for _, h := range sv.hosts {
		if secure(protocol) {
			if other, taken := x.claimed[port][h.host]; taken {
				no("host %s on port %d is served by Gateway %s already", h.host, sv.number, other)
				continue
			}
			x.claimed[port][h.host] = who
		}
		if !goodHost(h.host) {
			no("host %q: a wildcard stands alone or before the first dot", h.host)
			continue
		}
		if !slices.Contains(hosts, h.host) {
			hosts = append(hosts, h.host)
		}
	}
	return hosts
}

func (x *planner) tls(t *networking.ServerTLSSettings, no func(string, ...any)) (*l7.TLS, bool) {
	out := &l7.TLS{SubjectAltNames: t.GetSubjectAltNames()}
	switch t.GetMode() {
	case networking.ServerTLSSettings_SIMPLE:
	case networking.ServerTLSSettings_MUTUAL:
		out.Mode = l7.TLS_MUTUAL
	case networking.ServerTLSSettings_OPTIONAL_MUTUAL:
		out.Mode = l7.TLS_OPTIONAL_MUTUAL
	default:
		no("TLS mode %s is not served yet", t.GetMode())
		return nil, false
	}
	names := t.GetCredentialNames()
	if t.GetCredentialName() != "" {
		names = []string{t.GetCredentialName()}
	}
	if len(names) == 0 {
		no("https needs a credentialName; certificates from files are not served")
		return nil, false
	}
	for _, name := range names {
		name = strings.TrimPrefix(name, "kubernetes://")
		if err := x.usable(name, out.Mode != l7.TLS_SIMPLE); err != nil {
			no("credentialName %s: %v; connections are refused until that is mended", name, err)
		}
		ref := SecretRef{Proxy: x.plan.Proxy.Name, Namespace: x.plan.Proxy.Namespace, Secret: name}
		if !slices.Contains(x.plan.Secrets, ref) {
			x.plan.Secrets = append(x.plan.Secrets, ref)
		}
		out.Secrets = append(out.Secrets, ref.Name())
	}
	out.MinVersion, out.MaxVersion = tlsVersion(t.GetMinProtocolVersion()), tlsVersion(t.GetMaxProtocolVersion())
	out.CipherSuites, out.Spki, out.Hashes = t.GetCipherSuites(), t.GetVerifyCertificateSpki(), t.GetVerifyCertificateHash()
	return out, true
}

func tlsVersion(v networking.ServerTLSSettings_TLSProtocol) uint32 {
	switch v {
	case networking.ServerTLSSettings_TLSV1_0:
		return 10
	case networking.ServerTLSSettings_TLSV1_1:
		return 11
	case networking.ServerTLSSettings_TLSV1_2:
		return 12
	case networking.ServerTLSSettings_TLSV1_3:
		return 13
	}
	return 0
}

// bindAddress: "0.0.0.0" and "::" are the default; a unix socket is not served and falls to it as well.
func bindAddress(s string) string {
	if s == "0.0.0.0" || s == "::" || strings.HasPrefix(s, "unix:") {
		return ""
	}
	return s
}
