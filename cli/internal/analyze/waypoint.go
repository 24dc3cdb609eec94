package analyze

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

func waypoints(a *analysis) {
	for _, l := range a.all {
		a.named(l)
	}
	each(a, func(l kinds.Located, v *networkingv1.VirtualService) {
		if !inMesh(v) || slices.ContainsFunc(v.Spec.GetGateways(), func(g string) bool { return g != "mesh" }) {
			return
		}
		for _, h := range v.Spec.GetHosts() {
			if s, _ := a.host(h, v.Namespace); s != nil && !a.served(s) {
				a.add(l, finding{
					Warning, "AMB0008", "spec.hosts", fmt.Sprintf("These routes have no effect: service %s has no waypoint, and ztunnel does not route HTTP.", keyOf(s)),
					"give the service a waypoint by the label " + mesh.LabelUseWaypoint + ", or bind the routes to a gateway",
				})
				return
			}
		}
	})
	each(a, func(l kinds.Located, r *gatewayv1.HTTPRoute) {
		for i, p := range r.Spec.ParentRefs {
			if p.Kind == nil || *p.Kind != "Service" {
				continue
			}
			if s := a.services[fqdn(string(p.Name), r.Namespace)]; s != nil && !a.served(s) {
				a.add(l, finding{
					Warning, "AMB0008", fmt.Sprintf("spec.parentRefs[%d]", i), fmt.Sprintf("These routes have no effect: service %s has no waypoint, and ztunnel does not route HTTP.", keyOf(s)),
					"give the service a waypoint by the label " + mesh.LabelUseWaypoint,
				})
			}
		}
	})
	each(a, func(l kinds.Located, p *securityv1.AuthorizationPolicy) { a.attached(l, p) })
}

// waypoint is what an object's label names, with the namespace's label behind it; "" is none.
func (a *analysis) waypoint(o kinds.Object) (key string) {
	labels := o.GetLabels()
	if labels[mesh.LabelUseWaypoint] == "" {
		if ns := a.namespaces[o.GetNamespace()]; ns != nil {
			labels = ns.Labels
		}
	}
	name := labels[mesh.LabelUseWaypoint]
	if name == "" || name == "none" {
		return ""
	}
	return cmp.Or(labels[mesh.LabelUseWaypointNamespace], o.GetNamespace()) + "/" + name
}

func (a *analysis) served(s *corev1.Service) bool { return a.waypoints[a.waypoint(s)] != nil }

// named wants the waypoint that a label names to exist and to run.
func (a *analysis) named(l kinds.Located) {
	o := l.Object
	name := o.GetLabels()[mesh.LabelUseWaypoint]
	switch o.(type) {
	case *corev1.Namespace, *corev1.Service, *corev1.Pod, *networkingv1.ServiceEntry, *networkingv1.WorkloadEntry:
	default:
		return
	}
	if name == "" || name == "none" {
		return
	}
	own := o.GetNamespace()
	if _, ok := o.(*corev1.Namespace); ok {
		own = o.GetName()
	}
	key := cmp.Or(o.GetLabels()[mesh.LabelUseWaypointNamespace], own) + "/" + name
	path := "metadata.labels." + mesh.LabelUseWaypoint
	g := a.waypoints[key]
	if g == nil {
		a.add(l, finding{
			Error, "IST0101", path, fmt.Sprintf("Referenced waypoint not found: %q", key),
			"create the Gateway of class istio-waypoint, or remove the label: what needs the waypoint is not enforced meanwhile" + a.nearWaypoint(key),
		})
		return
	}
	for _, c := range g.Status.Conditions {
		if l.File == "" && c.Type == string(gatewayv1.GatewayConditionProgrammed) && c.Status != "True" {
			a.add(l, finding{Warning, "AMB0005", path, fmt.Sprintf("The waypoint %s is not ready (%s: %s).", key, c.Reason, c.Message), "see `ambit local describe gateways.gateway.networking.k8s.io " + g.Name + " -n " + g.Namespace + "`"})
		}
	}
}

func (a *analysis) nearWaypoint(key string) string {
	if near, ok := kinds.Nearest(key, slices.Sorted(maps.Keys(a.waypoints))); ok {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}

// attached wants the targets of a policy to be there, and a service among them to have the waypoint that would enforce it.
func (a *analysis) attached(l kinds.Located, p *securityv1.AuthorizationPolicy) {
	refs := p.Spec.GetTargetRefs()
	if p.Spec.GetTargetRef() != nil {
		refs = append(slices.Clone(refs), p.Spec.TargetRef)
	}
	for _, r := range refs {
		key := p.Namespace + "/" + r.GetName()
		switch strings.ToLower(r.GetKind()) {
		case "service":
			s := a.services[fqdn(r.GetName(), p.Namespace)]
			switch {
			case s == nil && a.knows(p.Namespace):
				a.add(l, finding{Error, "IST0101", "spec.targetRefs", fmt.Sprintf("Referenced service not found: %q", key), "a target is in the policy's own namespace" + a.near(r.GetName(), p.Namespace)})
			case s != nil && !a.served(s):
				a.idle(l, fmt.Sprintf("service %s has no waypoint, and nobody else enforces policies with targetRefs", key), "give the service a waypoint by the label "+mesh.LabelUseWaypoint+", or use a selector")
			}
		case "gateway":
			if a.waypoints[key] == nil && a.knows(p.Namespace) {
				a.add(l, finding{Error, "IST0101", "spec.targetRefs", fmt.Sprintf("Referenced gateway not found: %q", key), "a target is in the policy's own namespace" + a.nearWaypoint(key)})
			}
		}
	}
}
