package routing

import (
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/collection"
)

// gatewaysOf names the Gateways that a VirtualService is for, as "namespace/name"; "mesh" is not one.
func gatewaysOf(vs *networkingv1.VirtualService) []string {
	var keys []string
	for _, g := range vs.Spec.GetGateways() {
		if g != "mesh" {
			keys = append(keys, gatewayKey(g, vs.Namespace))
		}
	}
	return keys
}

// gatewayKey resolves "name", "namespace/name" and the old "name.namespace.svc.cluster.local".
func gatewayKey(name, namespace string) string {
	if strings.Contains(name, "/") {
		if rest, ok := strings.CutPrefix(name, "./"); ok {
			return namespace + "/" + rest
		}
		return name
	}
	if p := strings.SplitN(name, ".", 3); len(p) == 3 && strings.HasPrefix(p[2], "svc") {
		return p[1] + "/" + p[0]
	}
	return namespace + "/" + name
}

// routes makes the routes of a set: for each host that servers and VirtualServices share, the rules of all those
// VirtualServices, the oldest first, each in its author's order. Rules that match everything go to the end, so that one
// VirtualService does not hide another of the same host.
func (x *planner) routes(set string) {
	byHost := map[string]*l7.Route{}
	var order []string
	route := func(host string) *l7.Route {
		if byHost[host] == nil {
			byHost[host] = &l7.Route{
				Name: x.plan.Proxy.Name + "/" + set + "/" + host, Proxy: x.plan.Proxy.Name, Set: set, Hosts: []string{host},
			}
			order = append(order, host)
		}
		return byHost[host]
	}
	for _, sv := range x.sets[set] {
		gateway := sv.gateway.Namespace + "/" + sv.gateway.Name
		virtual := collection.Lookup(x.r, x.byGateway, gateway)
		slices.SortFunc(virtual, func(a, b *networkingv1.VirtualService) int { return byAge(a, b) })
		for _, vs := range virtual {
			if !exported(vs.Spec.GetExportTo(), vs.Namespace, x.plan.Proxy.Namespace) {
				continue
			}
			hosts := shared(sv, vs, x.ClusterDomain)
			if len(hosts) == 0 {
				continue
			}
			rules := x.rules(vs, sv, gateway)
			for _, h := range hosts {
				r := route(h)
				for _, rule := range rules {
					if !has(r.GetRules(), rule) {
						r.Rules = append(r.Rules, rule)
					}
				}
			}
		}
		if sv.redirect {
			for _, h := range sv.hosts {
				route(h.host)
			}
			for _, h := range order {
				if slices.ContainsFunc(sv.hosts, func(s scopedHost) bool { return within(h, s.host) }) {
					byHost[h].HttpsRedirect = true
				}
			}
		}
	}
	for _, h := range order {
		r := byHost[h]
		slices.SortStableFunc(r.Rules, func(a, b *l7.Rule) int { return boolInt(catchAll(a)) - boolInt(catchAll(b)) })
		x.plan.Routes = append(x.plan.Routes, r)
	}
}

// has keeps a VirtualService that several servers of one port share from being added twice.
func has(rules []*l7.Rule, rule *l7.Rule) bool { return slices.Contains(rules, rule) }

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// exported reports whether an object of one namespace may be seen in another.
func exported(to []string, from, namespace string) bool {
	if len(to) == 0 {
		return true
	}
	for _, t := range to {
		if t == "*" || t == namespace || t == "." && from == namespace {
			return true
		}
	}
	return false
}

// shared are the hosts that a server and a VirtualService have in common, each as the narrower of the two wrote it.
func shared(sv *server, vs *networkingv1.VirtualService, domain string) []string {
	var out []string
	for _, v := range vs.Spec.GetHosts() {
		v = strings.ToLower(fullName(v, vs.Namespace, domain))
		for _, s := range sv.hosts {
			if s.namespace != "" && s.namespace != vs.Namespace {
				continue
			}
			h := ""
			switch {
			case within(v, s.host):
				h = v
			case within(s.host, v):
				h = s.host
			default:
				continue
			}
			if goodHost(h) && !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
	}
	return out
}

// within reports whether every name that narrow stands for is one of wide's.
func within(narrow, wide string) bool {
	if wide == "*" || narrow == wide {
		return true
	}
	suffix, ok := strings.CutPrefix(wide, "*")
	return ok && strings.HasSuffix(strings.TrimPrefix(narrow, "*"), suffix) && len(narrow) > len(suffix)
}

// fullName completes a short name in the namespace of the object that wrote it.
func fullName(host, namespace, domain string) string {
	if strings.ContainsAny(host, ".*") {
		return strings.TrimSuffix(host, ".")
	}
	return host + "." + namespace + ".svc." + domain
}
