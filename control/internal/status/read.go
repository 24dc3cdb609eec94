package status

import (
	metav1alpha1 "istio.io/api/meta/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// conditions are those that an object carries.
func conditions(o kinds.Object) []metav1.Condition {
	switch o := o.(type) {
	case *securityv1.AuthorizationPolicy:
		return fromIstio(o.Status.Conditions)
	case *securityv1.PeerAuthentication:
		return fromIstio(o.Status.Conditions)
	case *securityv1.RequestAuthentication:
		return fromIstio(o.Status.Conditions)
	case *networkingv1.ServiceEntry:
		return fromIstio(o.Status.Conditions)
	case *networkingv1.WorkloadEntry:
		return fromIstio(o.Status.Conditions)
	case *networkingv1.WorkloadGroup:
		return fromIstio(o.Status.Conditions)
	case *networkingv1.VirtualService:
		return fromIstio(o.Status.Conditions)
	case *networkingv1.DestinationRule:
		return fromIstio(o.Status.Conditions)
	case *networkingv1.Gateway:
		return fromIstio(o.Status.Conditions)
	case *gatewayv1.Gateway:
		return o.Status.Conditions
	case *gatewayv1.HTTPRoute:
		if len(o.Status.Parents) > 0 {
			return o.Status.Parents[0].Conditions
		}
	case *corev1.Service:
		return o.Status.Conditions
	}
	return nil
}

func fromIstio(all []*metav1alpha1.IstioCondition) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range all {
		out = append(out, metav1.Condition{
			Type: c.GetType(), Status: metav1.ConditionStatus(c.GetStatus()), LastTransitionTime: metav1.NewTime(c.GetLastTransitionTime().AsTime()),
		})
	}
	return out
}
