package kube

import (
	securityv1beta1 "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// closed is what stands for a security object that is not understood: it refuses all that the object may be about, for
// what it allows or demands is not known. It is nil for other kinds, and for policies of waypoints alone.
func closed(k kinds.Kind, o *unstructured.Unstructured) kinds.Object {
	spec, _ := o.Object["spec"].(map[string]any)
	meta := metav1.ObjectMeta{
		Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID(), Generation: o.GetGeneration(), CreationTimestamp: o.GetCreationTimestamp(),
	}
	var out kinds.Object
	switch selector := selectorOf(spec); k.Kind {
	case "AuthorizationPolicy":
		if spec["selector"] == nil && (filled(spec["targetRefs"]) || filled(spec["targetRef"])) {
			return nil
		}
		out = &securityv1.AuthorizationPolicy{ObjectMeta: meta, Spec: securityv1beta1.AuthorizationPolicy{
			Selector: selector, Action: securityv1beta1.AuthorizationPolicy_DENY, Rules: []*securityv1beta1.Rule{{}},
		}}
	case "PeerAuthentication":
		out = &securityv1.PeerAuthentication{ObjectMeta: meta, Spec: securityv1beta1.PeerAuthentication{
			Selector: selector, Mtls: &securityv1beta1.PeerAuthentication_MutualTLS{Mode: securityv1beta1.PeerAuthentication_MutualTLS_STRICT},
		}}
	default:
		return nil
	}
	out.GetObjectKind().SetGroupVersionKind(k.New().GetObjectKind().GroupVersionKind())
	return out
}

// selectorOf is the selector of a spec; nil, which is all of the namespace, where it is not understood either.
func selectorOf(spec map[string]any) *typev1beta1.WorkloadSelector {
	s, _ := spec["selector"].(map[string]any)
	labels, _ := s["matchLabels"].(map[string]any)
	out := &typev1beta1.WorkloadSelector{MatchLabels: map[string]string{}}
	for name, v := range labels {
		value, ok := v.(string)
		if !ok {
			return nil
		}
		out.MatchLabels[name] = value
	}
	if len(s) != 1 || len(labels) == 0 {
		return nil
	}
	return out
}

func filled(v any) bool {
	switch v := v.(type) {
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return false
}
