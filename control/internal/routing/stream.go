package routing

import (
	"cmp"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/collection"
)

// streams are the rules of a server that carries bytes, from the tls routes of VirtualServices where the name in TLS
// decides, else from their tcp routes. Rules for narrower names come first, then the oldest.
func (x *planner) streams(sv *server, passthrough bool) []*l7.StreamRule {
	var out []*l7.StreamRule
	gateway := sv.gateway.Namespace + "/" + sv.gateway.Name
	virtual := collection.Lookup(x.r, x.byGateway, gateway)
	slices.SortFunc(virtual, func(a, b *networkingv1.VirtualService) int { return byAge(a, b) })
	for _, vs := range virtual {
		if !exported(vs.Spec.GetExportTo(), vs.Namespace, x.plan.Proxy.Namespace) || len(shared(sv, vs, x.ClusterDomain)) == 0 {
			continue
		}
		if passthrough {
			out = append(out, x.tlsRules(vs, sv, gateway)...)
		} else {
			out = append(out, x.tcpRules(vs, sv, gateway)...)
		}
	}
	if len(out) == 0 {
		x.problem("Gateway", sv.gateway.Namespace, sv.gateway.Name, "port %d: no VirtualService has %s routes for it; connections are closed",
			sv.number, map[bool]string{true: "tls", false: "tcp"}[passthrough])
	}
	slices.SortStableFunc(out, func(a, b *l7.StreamRule) int { return cmp.Compare(narrowness(b), narrowness(a)) })
	return out
}

func (x *planner) tlsRules(vs *networkingv1.VirtualService, sv *server, gateway string) []*l7.StreamRule {
	var out []*l7.StreamRule
	for i, t := range vs.Spec.GetTls() {
		for _, m := range t.GetMatch() {
			if !x.applies(vs, sv, gateway, m.GetGateways(), m.GetPort(), m.GetSourceNamespace(), m.GetSourceLabels()) {
				continue
			}
			for _, sni := range m.GetSniHosts() {
				sni = strings.ToLower(sni)
				if !slices.ContainsFunc(vs.Spec.GetHosts(), func(h string) bool { return within(sni, strings.ToLower(h)) }) {
					x.problem("VirtualService", vs.Namespace, vs.Name, "tls[%d]: sniHosts %s is none of the hosts; not in force", i, sni)
					continue
				}
				out = append(out, &l7.StreamRule{
					Matches:      []*l7.StreamMatch{{SniHosts: []string{sni}, DestinationSubnets: m.GetDestinationSubnets()}},
					Destinations: x.split(vs, sv, t.GetRoute()), Source: "VirtualService/" + vs.Namespace + "/" + vs.Name,
				})
			}
		}
	}
	return out
}

func (x *planner) tcpRules(vs *networkingv1.VirtualService, sv *server, gateway string) []*l7.StreamRule {
	var out []*l7.StreamRule
	for _, t := range vs.Spec.GetTcp() {
		r := &l7.StreamRule{Source: "VirtualService/" + vs.Namespace + "/" + vs.Name}
		always := len(t.GetMatch()) == 0
		for _, m := range t.GetMatch() {
			if !x.applies(vs, sv, gateway, m.GetGateways(), m.GetPort(), m.GetSourceNamespace(), m.GetSourceLabels()) {
				continue
			}
			if len(m.GetDestinationSubnets()) == 0 {
				always = true
				break
			}
			r.Matches = append(r.Matches, &l7.StreamMatch{DestinationSubnets: m.GetDestinationSubnets()})
		}
		if always {
			r.Matches = nil
		}
		if always || len(r.Matches) > 0 {
			r.Destinations = x.split(vs, sv, t.GetRoute())
			out = append(out, r)
		}
	}
	return out
}

// applies reports whether what a match says of proxies holds for this one.
func (x *planner) applies(vs *networkingv1.VirtualService, sv *server, gateway string, gateways []string, port uint32, ns string, labels map[string]string) bool {
	named := len(gateways) == 0 || slices.ContainsFunc(gateways, func(g string) bool { return gatewayKey(g, vs.Namespace) == gateway })
	return named && (port == 0 || port == sv.number) && (ns == "" || ns == x.plan.Proxy.Namespace) && covers(labels, x.plan.Proxy.Labels)
}

func (x *planner) split(vs *networkingv1.VirtualService, sv *server, routes []*networking.RouteDestination) []*l7.Destination {
	var out []*l7.Destination
	for _, d := range routes {
		w := uint32(max(d.GetWeight(), 0))
		if len(routes) == 1 {
			w = 1
		}
		out = append(out, &l7.Destination{Backend: x.destination(vs, sv, d.GetDestination()), Weight: w})
	}
	return out
}

// narrowness orders rules: exact names, then the longest wildcard, then any name; subnets before none.
func narrowness(r *l7.StreamRule) int {
	n := 0
	for _, m := range r.GetMatches() {
		if len(m.GetDestinationSubnets()) > 0 {
			n++
		}
		for _, h := range m.GetSniHosts() {
			switch {
			case h == "*":
			case strings.HasPrefix(h, "*"):
				n += 2 * len(h)
			default:
				n += 1 << 12
			}
		}
	}
	return n
}
