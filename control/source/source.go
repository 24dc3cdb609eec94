// Package source is what the control plane reads: one typed collection per kind.
package source

import (
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/collection"
)

// Objects holds every object that the control plane reads, keyed "namespace/name", or "name" where a kind has no
// namespaces. A source fills it; nothing downstream can tell which one did. The objects are never written.
type Objects struct {
	Namespaces      collection.Collection[*corev1.Namespace]
	Nodes           collection.Collection[*corev1.Node]
	Pods            collection.Collection[*corev1.Pod]
	Services        collection.Collection[*corev1.Service]
	ServiceAccounts collection.Collection[*corev1.ServiceAccount]
	ConfigMaps      collection.Collection[*corev1.ConfigMap]
	Secrets         collection.Collection[*corev1.Secret]
	EndpointSlices  collection.Collection[*discoveryv1.EndpointSlice]
	Deployments     collection.Collection[*appsv1.Deployment]

	Gateways         collection.Collection[*networkingv1.Gateway] // networking.istio.io
	VirtualServices  collection.Collection[*networkingv1.VirtualService]
	DestinationRules collection.Collection[*networkingv1.DestinationRule]
	ServiceEntries   collection.Collection[*networkingv1.ServiceEntry]
	WorkloadEntries  collection.Collection[*networkingv1.WorkloadEntry]
	WorkloadGroups   collection.Collection[*networkingv1.WorkloadGroup]

	AuthorizationPolicies  collection.Collection[*securityv1.AuthorizationPolicy]
	PeerAuthentications    collection.Collection[*securityv1.PeerAuthentication]
	RequestAuthentications collection.Collection[*securityv1.RequestAuthentication]
	Telemetries            collection.Collection[*telemetryv1.Telemetry]

	GatewayClasses     collection.Collection[*gatewayv1.GatewayClass]
	KubeGateways       collection.Collection[*gatewayv1.Gateway] // gateway.networking.k8s.io
	HTTPRoutes         collection.Collection[*gatewayv1.HTTPRoute]
	GRPCRoutes         collection.Collection[*gatewayv1.GRPCRoute]
	TCPRoutes          collection.Collection[*gatewayv1.TCPRoute]
	TLSRoutes          collection.Collection[*gatewayv1.TLSRoute]
	ReferenceGrants    collection.Collection[*gatewayv1.ReferenceGrant]
	BackendTLSPolicies collection.Collection[*gatewayv1.BackendTLSPolicy]
}

// Key is how Objects files an object: "namespace/name", or "name" without a namespace.
func Key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
