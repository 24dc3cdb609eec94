package kube

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// what is a kind to follow, and which of its objects.
type what struct {
	kinds.Kind
	fields, labels string // selectors
	trim           func(kinds.Object)
}

// builtin reports whether every API server serves the kind.
func (w what) builtin() bool { return w.trim != nil }

// followed are the kinds that the control plane reads. What the server can leave out it does: objects that nobody reads
// cost memory at each change of them.
func followed() []what {
	all := []what{
		{Kind: kinds.Of(&corev1.Namespace{}), trim: trimNamespace},
		{Kind: kinds.Of(&corev1.Node{}), trim: trimNode},
		// A pod that has ended is none: it has no address and may not ask for certificates.
		{Kind: kinds.Of(&corev1.Pod{}), trim: trimPod, fields: "status.phase!=Succeeded,status.phase!=Failed"},
		{Kind: kinds.Of(&corev1.Service{}), trim: trimService},
		{Kind: kinds.Of(&corev1.ConfigMap{}), trim: trimNothing, fields: "metadata.name=" + mesh.RootConfigMap},
		{Kind: kinds.Of(&corev1.Secret{}), trim: trimSecret, fields: "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token," +
			"type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg,type!=bootstrap.kubernetes.io/token"},
		// Those of the controller say what the pods say themselves.
		{Kind: kinds.Of(&discoveryv1.EndpointSlice{}), trim: trimNothing, labels: discoveryv1.LabelManagedBy + "!=endpointslice-controller.k8s.io"},
	}
	reads := source.NewStore()
	for _, k := range kinds.All() {
		if (strings.HasSuffix(k.Group, ".istio.io") || k.Group == gatewayv1.GroupName) && reads.Reads(k.New()) {
			all = append(all, what{Kind: k})
		}
	}
	return all
}
