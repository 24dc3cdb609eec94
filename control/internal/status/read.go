package status

import (
	"fmt"

	metav1alpha1 "istio.io/api/meta/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// istioStatus is where an object of Istio keeps its status; nil for others, and for a ServiceEntry, which keeps more there.
func istioStatus(o kinds.Object) *metav1alpha1.IstioStatus {
	switch o := o.(type) {
	case *securityv1.AuthorizationPolicy:
		return &o.Status
	case *securityv1.PeerAuthentication:
		return &o.Status
	case *securityv1.RequestAuthentication:
		return &o.Status
	case *networkingv1.WorkloadEntry:
		return &o.Status
	case *networkingv1.WorkloadGroup:
		return &o.Status
	case *networkingv1.VirtualService:
		return &o.Status
	case *networkingv1.DestinationRule:
		return &o.Status
	case *networkingv1.Gateway:
		return &o.Status
	case *telemetryv1.Telemetry:
		return &o.Status
	}
	return nil
}

// routeOf is what routes of every kind have in common: which parents they ask for, and where their status is kept. It is nil
// for others.
func routeOf(o kinds.Object) ([]gatewayv1.ParentReference, *gatewayv1.RouteStatus) {
	switch o := o.(type) {
	case *gatewayv1.HTTPRoute:
		return o.Spec.ParentRefs, &o.Status.RouteStatus
	case *gatewayv1.GRPCRoute:
		return o.Spec.ParentRefs, &o.Status.RouteStatus
	case *gatewayv1.TLSRoute:
		return o.Spec.ParentRefs, &o.Status.RouteStatus
	case *gatewayv1.TCPRoute:
		return o.Spec.ParentRefs, &o.Status.RouteStatus
	}
	return nil, nil
}

// conditions are those that an object carries, by the names under which keeper remembers them.
func conditions(o kinds.Object) map[string]held {
	all := map[string]held{}
	note := func(place string, cs []metav1.Condition) {
		for _, c := range cs {
			all[at(place, c.Type)] = held{c.Status == metav1.ConditionTrue, c.LastTransitionTime.Time}
		}
	}
	if s := istioStatus(o); s != nil {
		note("", fromIstio(s.Conditions))
	}
	if _, s := routeOf(o); s != nil {
		for i, p := range s.Parents {
			note(parent(i), p.Conditions)
		}
	}
	switch o := o.(type) {
	case *networkingv1.ServiceEntry:
		note("", fromIstio(o.Status.Conditions))
	case *gatewayv1.Gateway:
		note("", o.Status.Conditions)
		for _, l := range o.Status.Listeners {
			note(listener(l.Name), l.Conditions)
		}
	case *corev1.Service:
		note("", o.Status.Conditions)
	}
	return all
}

// at names a condition at one of several places of an object, which may all have one of the same type.
func at(place, kind string) string {
	if place == "" {
		return kind
	}
	return place + " " + kind
}

func parent(i int) string { return fmt.Sprintf("parent %d", i) }

func listener(name gatewayv1.SectionName) string { return "listener " + string(name) }

func fromIstio(all []*metav1alpha1.IstioCondition) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range all {
		out = append(out, metav1.Condition{
			Type: c.GetType(), Status: metav1.ConditionStatus(c.GetStatus()), LastTransitionTime: metav1.NewTime(c.GetLastTransitionTime().AsTime()),
		})
	}
	return out
}
