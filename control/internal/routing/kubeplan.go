package routing

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
)

// kube adds the listeners of a Gateway of Kubernetes, and the routes that are attached to each. A listener has routes of
// its own: what is attached to one is not served by another.
func (x *planner) kube(g *gatewayv1.Gateway) {
	routes := x.routesOf(x.r, g.Namespace+"/"+g.Name)
	slices.SortStableFunc(routes, func(a, b kubeRoute) int { return age(a.object, b.object) })
	for i, k := range x.kubeListeners(x.r, g) {
		if !k.open {
			continue
		}
		var tls *l7.TLS
		if len(k.secrets) > 0 {
			tls = &l7.TLS{}
			for _, s := range k.secrets {
				s.Proxy = x.plan.Proxy.Name
				if !slices.Contains(x.plan.Secrets, s) {
					x.plan.Secrets = append(x.plan.Secrets, s)
				}
				tls.Secrets = append(tls.Secrets, s.Name())
			}
		}
		byHost := map[string][]ranked{}
		var streams []*l7.StreamRule
		for _, route := range routes {
			for _, host := range x.attachedHosts(k, route) {
				if route.http != nil {
					byHost[host] = append(byHost[host], x.httpRules(route, k)...)
				} else {
					streams = append(streams, x.kubeStreams(route, k, host)...)
				}
			}
		}
		slices.SortStableFunc(streams, func(a, b *l7.StreamRule) int { return narrowness(b) - narrowness(a) })
		for _, port := range x.plan.Proxy.ports(uint32(k.spec.Port)) {
			if have, ok := x.protocol[port]; ok && have != k.protocol && !(secure(have) && secure(k.protocol)) {
				continue // an older Gateway of networking.istio.io has it
			}
			x.protocol[port] = k.protocol
			x.plan.Listeners = append(x.plan.Listeners, &l7.Listener{
				Name: fmt.Sprintf("%s/%d/kube/%s/%s/%d", x.plan.Proxy.Name, port, g.Namespace, g.Name, i), Proxy: x.plan.Proxy.Name,
				Port: port, ServicePort: uint32(k.spec.Port), Protocol: k.protocol, Hosts: []string{k.host()}, Tls: tls,
				Gateway: g.Namespace + "/" + g.Name, Routes: k.set(), Streams: streams,
			})
		}
		x.kubeRoutes(k, byHost)
	}
}

func (x *planner) kubeRoutes(k *kubeListener, byHost map[string][]ranked) {
	hosts := make([]string, 0, len(byHost))
	for h := range byHost {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	for _, h := range hosts {
		all := byHost[h]
		slices.SortStableFunc(all, byRank)
		x.plan.Routes = append(x.plan.Routes, &l7.Route{
			Name: x.plan.Proxy.Name + "/" + k.set() + "/" + h, Proxy: x.plan.Proxy.Name, Set: k.set(), Hosts: []string{h},
			Rules: each(all, func(r ranked) *l7.Rule { return r.rule }),
		})
	}
}

// attachedHosts are the hosts that a route has at a listener.
func (x *planner) attachedHosts(k *kubeListener, route kubeRoute) []string {
	var out []string
	for _, p := range route.parents {
		if parentKey(p, route.object.GetNamespace()) != k.gateway.Namespace+"/"+k.gateway.Name {
			continue
		}
		hosts, _ := x.attach(x.r, k, route, p)
		out = append(out, hosts...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (x *planner) kubeStreams(route kubeRoute, k *kubeListener, host string) []*l7.StreamRule {
	var out []*l7.StreamRule
	for _, refs := range route.streams {
		r := &l7.StreamRule{Source: route.kind + "/" + route.object.GetNamespace() + "/" + route.object.GetName()}
		if route.kind == "TLSRoute" {
			r.Matches = []*l7.StreamMatch{{SniHosts: []string{host}}}
		}
		for _, ref := range refs {
			r.Destinations = append(r.Destinations, &l7.Destination{Backend: x.kubeBackend(route, ref, k), Weight: uint32(max(deref(ref.Weight, 1), 0))})
		}
		out = append(out, r)
	}
	return out
}

// backends are all that a route leads to.
func (route kubeRoute) backends() []gatewayv1.BackendObjectReference {
	var out []gatewayv1.BackendObjectReference
	for _, refs := range route.streams {
		for _, ref := range refs {
			out = append(out, ref.BackendObjectReference)
		}
	}
	if route.http == nil {
		return out
	}
	for _, r := range route.http.Spec.Rules {
		for _, ref := range r.BackendRefs {
			out = append(out, ref.BackendObjectReference)
		}
		for _, f := range r.Filters {
			if f.RequestMirror != nil {
				out = append(out, f.RequestMirror.BackendRef)
			}
		}
	}
	return out
}

// unserved tells what of a route no gateway does yet; a rule that asks for it answers 500.
func (route kubeRoute) unserved() string {
	if route.http == nil {
		return ""
	}
	for i, r := range route.http.Spec.Rules {
		for _, m := range r.Matches {
			match, _ := httpMatch(m)
			if err := checkRule(&l7.Rule{Matches: []*l7.Match{match}}); err != nil {
				return fmt.Sprintf("rules[%d]: %v", i, err)
			}
		}
		for _, f := range r.Filters {
			if f.RequestHeaderModifier == nil && f.ResponseHeaderModifier == nil && f.RequestRedirect == nil && f.URLRewrite == nil && f.CORS == nil && f.RequestMirror == nil {
				return fmt.Sprintf("rules[%d]: filter %s is not served by this version", i, f.Type)
			}
		}
		if r.SessionPersistence != nil {
			return fmt.Sprintf("rules[%d]: sessionPersistence is not served by this version; a DestinationRule with consistentHash is", i)
		}
	}
	return ""
}

// resolve tells whether what a route leads to exists, and may be led to.
func (b *builder) resolve(r *collection.Read, route kubeRoute, ref gatewayv1.BackendObjectReference) Verdict {
	bad := func(reason gatewayv1.RouteConditionReason, format string, args ...any) Verdict {
		return no("ResolvedRefs", string(reason), format, args...)
	}
	from := route.object.GetNamespace()
	ns := string(deref(ref.Namespace, gatewayv1.Namespace(from)))
	if deref(ref.Group, "") != "" || deref(ref.Kind, "Service") != "Service" {
		return bad(gatewayv1.RouteReasonInvalidKind, "backend %s is no Service", ref.Name)
	}
	if ns != from && !b.granted(r, route.kind, from, "Service", ns, string(ref.Name)) {
		return bad(gatewayv1.RouteReasonRefNotPermitted, "no ReferenceGrant of namespace %s lets a %s of %s lead to Service %s", ns, route.kind, from, ref.Name)
	}
	s := b.service(r, Ref{Host: string(ref.Name) + "." + ns + ".svc." + b.ClusterDomain, From: ns})
	if s == nil || s.GetNamespace() != ns {
		return bad(gatewayv1.RouteReasonBackendNotFound, "there is no Service %s in namespace %s", ref.Name, ns)
	}
	if ref.Port == nil || !slices.ContainsFunc(s.GetPorts(), func(p *workload.Port) bool { return p.GetServicePort() == uint32(*ref.Port) }) {
		return bad(gatewayv1.RouteReasonBackendNotFound, "service %s/%s has no such port", ns, ref.Name)
	}
	return yes("ResolvedRefs")
}

// kubeBackend names the backend of a reference and notes that it is needed; empty for one that cannot be had, so that its
// share of the requests is answered 500.
func (x *planner) kubeBackend(route kubeRoute, ref gatewayv1.BackendRef, k *kubeListener) string {
	if !x.resolve(x.r, route, ref.BackendObjectReference).True {
		return ""
	}
	ns := string(deref(ref.Namespace, gatewayv1.Namespace(route.object.GetNamespace())))
	out := Ref{
		Proxy: x.plan.Proxy.Name, Host: strings.ToLower(string(ref.Name) + "." + ns + ".svc." + x.ClusterDomain), Port: uint32(*ref.Port),
		From: ns, HTTP2: route.kind == "GRPCRoute",
	}
	if _, ok := x.refs[out.Name()]; !ok {
		x.refs[out.Name()] = struct{}{}
		x.plan.Backends = append(x.plan.Backends, out)
	}
	return out.Name()
}
