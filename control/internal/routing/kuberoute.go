package routing

import (
	"cmp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/collection"
)

// kubeRoute is a route of any kind, as far as its attachment goes.
type kubeRoute struct {
	kind    string
	object  metav1.Object
	hosts   []gatewayv1.Hostname
	parents []gatewayv1.ParentReference
	http    *gatewayv1.HTTPRoute     // of an HTTPRoute, or what a GRPCRoute means
	streams [][]gatewayv1.BackendRef // of TLSRoutes and TCPRoutes: of each rule
}

func fromHTTP(o *gatewayv1.HTTPRoute) kubeRoute {
	return kubeRoute{kind: "HTTPRoute", object: o, hosts: o.Spec.Hostnames, parents: o.Spec.ParentRefs, http: o}
}

func fromGRPC(o *gatewayv1.GRPCRoute) kubeRoute {
	return kubeRoute{kind: "GRPCRoute", object: o, hosts: o.Spec.Hostnames, parents: o.Spec.ParentRefs, http: asHTTP(o)}
}

func fromTLS(o *gatewayv1.TLSRoute) kubeRoute {
	k := kubeRoute{kind: "TLSRoute", object: o, hosts: o.Spec.Hostnames, parents: o.Spec.ParentRefs}
	for _, r := range o.Spec.Rules {
		k.streams = append(k.streams, r.BackendRefs)
	}
	return k
}

func fromTCP(o *gatewayv1.TCPRoute) kubeRoute {
	k := kubeRoute{kind: "TCPRoute", object: o, parents: o.Spec.ParentRefs}
	for _, r := range o.Spec.Rules {
		k.streams = append(k.streams, r.BackendRefs)
	}
	return k
}

// parentKey names the Gateway that a reference means, "namespace/name"; empty for other parents.
func parentKey(p gatewayv1.ParentReference, namespace string) string {
	if deref(p.Group, gatewayv1.GroupName) != gatewayv1.GroupName || deref(p.Kind, "Gateway") != "Gateway" {
		return ""
	}
	return string(deref(p.Namespace, gatewayv1.Namespace(namespace))) + "/" + string(p.Name)
}

// gatewaysOfRoute files a route under the Gateways that it names.
func gatewaysOfRoute[T metav1.Object](parents func(T) []gatewayv1.ParentReference) func(T) []string {
	return func(o T) []string {
		var keys []string
		for _, p := range parents(o) {
			if k := parentKey(p, o.GetNamespace()); k != "" {
				keys = append(keys, k)
			}
		}
		return keys
	}
}

// routesOf are the routes that name a Gateway, the oldest first.
func (b *builder) routesOf(r *collection.Read, gateway string) []kubeRoute {
	var out []kubeRoute
	out = append(out, each(collection.Lookup(r, b.httpByGateway, gateway), fromHTTP)...)
	out = append(out, each(collection.Lookup(r, b.grpcByGateway, gateway), fromGRPC)...)
	out = append(out, each(collection.Lookup(r, b.tlsByGateway, gateway), fromTLS)...)
	out = append(out, each(collection.Lookup(r, b.tcpByGateway, gateway), fromTCP)...)
	return out
}

// attach decides whether a route is attached to a listener by one of its parents, and for which hosts.
func (b *builder) attach(r *collection.Read, k *kubeListener, route kubeRoute, p gatewayv1.ParentReference) ([]string, Verdict) {
	refuse := func(reason gatewayv1.RouteConditionReason, format string, args ...any) ([]string, Verdict) {
		return nil, no("Accepted", string(reason), format, args...)
	}
	if s := deref(p.SectionName, ""); s != "" && s != k.spec.Name || p.Port != nil && *p.Port != k.spec.Port {
		return refuse(gatewayv1.RouteReasonNoMatchingParent, "the Gateway has no listener that sectionName and port name")
	}
	taken := false
	for _, kind := range k.kinds {
		taken = taken || kind == route.kind
	}
	if !taken || !b.admits(r, k, route.object.GetNamespace()) {
		return refuse(gatewayv1.RouteReasonNotAllowedByListeners, "listener %s does not take a %s of namespace %s", k.spec.Name, route.kind, route.object.GetNamespace())
	}
	if route.kind == "TCPRoute" {
		return []string{"*"}, yes("Accepted")
	}
	hosts := k.hostsOf(route.hosts)
	if len(hosts) == 0 {
		return refuse(gatewayv1.RouteReasonNoMatchingListenerHostname, "none of the hostnames is one of listener %s", k.spec.Name)
	}
	return hosts, yes("Accepted")
}

// KubeStatus is what is to be said of one object of the Gateway API.
type KubeStatus struct {
	Verdicts  []Verdict        // of a Gateway
	Address   string           // of a Gateway: the host name of the Service that serves it
	Listeners []ListenerStatus // of a Gateway
	Parents   []ParentStatus   // of a route
}

// ListenerStatus is what is to be said of one listener.
type ListenerStatus struct {
	Name     gatewayv1.SectionName
	Kinds    []string
	Attached int
	Verdicts []Verdict
}

// ParentStatus is what is to be said of a route at one of its parents.
type ParentStatus struct {
	Ref      gatewayv1.ParentReference
	Verdicts []Verdict
}

// Judge judges objects of the Gateway API.
type Judge struct{ b *builder }

// Gateway says what became of a Gateway; false if it is not ours.
func (j Judge) Gateway(r *collection.Read, g *gatewayv1.Gateway) (KubeStatus, bool) {
	if !Served(g) {
		return KubeStatus{}, false
	}
	key := j.b.serviceOf(g)
	ns, name, _ := strings.Cut(key, "/")
	out := KubeStatus{Verdicts: []Verdict{yes("Accepted")}}
	_, exists := collection.Get(r, j.b.KubeServices, key)
	listeners := j.b.kubeListeners(r, g)
	open := 0
	routes := j.b.routesOf(r, g.Namespace+"/"+g.Name)
	for _, k := range listeners {
		if k.open {
			open++
		} else {
			out.Verdicts[0] = Verdict{Type: "Accepted", True: true, Reason: string(gatewayv1.GatewayReasonListenersNotValid), Message: "some listeners are closed, see theirs"}
		}
		s := ListenerStatus{Name: k.spec.Name, Kinds: k.kinds, Verdicts: k.verdicts}
		for _, route := range routes {
			for _, p := range route.parents {
				if parentKey(p, route.object.GetNamespace()) != g.Namespace+"/"+g.Name {
					continue
				}
				if _, v := j.b.attach(r, k, route, p); v.True {
					s.Attached++
					break
				}
			}
		}
		out.Listeners = append(out.Listeners, s)
	}
	switch {
	case !exists:
		out.Verdicts = append(out.Verdicts, no("Programmed", string(gatewayv1.GatewayReasonAddressNotUsable), "there is no Service %s in namespace %s to serve it", name, ns))
	case open == 0:
		out.Verdicts = append(out.Verdicts, no("Programmed", string(gatewayv1.GatewayReasonInvalid), "no listener is open"))
	default:
		out.Verdicts = append(out.Verdicts, yes("Programmed"))
		out.Address = name + "." + ns + ".svc." + j.b.ClusterDomain
	}
	return out, true
}

// HTTPRoute says what became of a route; false if none of its parents is ours.
func (j Judge) HTTPRoute(r *collection.Read, o *gatewayv1.HTTPRoute) (KubeStatus, bool) {
	return j.route(r, fromHTTP(o))
}

// GRPCRoute is the same of another kind, as are the next two.
func (j Judge) GRPCRoute(r *collection.Read, o *gatewayv1.GRPCRoute) (KubeStatus, bool) {
	return j.route(r, fromGRPC(o))
}

// TLSRoute judges a route by the name in TLS.
func (j Judge) TLSRoute(r *collection.Read, o *gatewayv1.TLSRoute) (KubeStatus, bool) {
	return j.route(r, fromTLS(o))
}

// TCPRoute judges a route of whole connections.
func (j Judge) TCPRoute(r *collection.Read, o *gatewayv1.TCPRoute) (KubeStatus, bool) {
	return j.route(r, fromTCP(o))
}

func (j Judge) route(r *collection.Read, route kubeRoute) (KubeStatus, bool) {
	var out KubeStatus
	for _, p := range route.parents {
		g, ok := collection.Get(r, j.b.KubeGateways, cmp.Or(parentKey(p, route.object.GetNamespace()), "/"))
		if !ok || !Served(g) {
			continue
		}
		accepted := no("Accepted", string(gatewayv1.RouteReasonNoMatchingParent), "the Gateway has no listener")
		for i, k := range j.b.kubeListeners(r, g) {
			_, v := j.b.attach(r, k, route, p)
			// What came nearest to being accepted says most.
			if v.True || !accepted.True && (i == 0 || nearer(v.Reason) > nearer(accepted.Reason)) {
				accepted = v
			}
		}
		resolved := yes("ResolvedRefs")
		for _, ref := range route.backends() {
			if v := j.b.resolve(r, route, ref); !v.True {
				resolved = v
				break
			}
		}
		if accepted.True {
			if why := route.unserved(); why != "" {
				accepted = no("Accepted", string(gatewayv1.RouteReasonUnsupportedValue), "%s", why)
			}
		}
		out.Parents = append(out.Parents, ParentStatus{Ref: p, Verdicts: []Verdict{accepted, resolved}})
	}
	return out, len(out.Parents) > 0
}

func nearer(reason string) int {
	switch gatewayv1.RouteConditionReason(reason) {
	case gatewayv1.RouteReasonNoMatchingListenerHostname:
		return 2
	case gatewayv1.RouteReasonNotAllowedByListeners:
		return 1
	}
	return 0
}
