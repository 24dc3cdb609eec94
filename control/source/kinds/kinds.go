// Package kinds knows the kinds of objects that a mesh is configured with and reads them strictly from YAML.
package kinds

import (
	"reflect"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	networkingv1beta1 "istio.io/client-go/pkg/apis/networking/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Object is a pointer to one of the typed structs listed by All.
type Object interface {
	metav1.Object
	runtime.Object
}

// Kind describes one kind of object. Every version in Versions decodes into the one Go type of Version.
type Kind struct {
	Group, Version, Kind, Plural string
	Short                        []string
	Versions                     []string
	Namespaced                   bool
	New                          func() Object

	typ reflect.Type
}

// APIVersion is what an object of this kind says in its apiVersion.
func (k Kind) APIVersion() string {
	if k.Group == "" {
		return k.Version
	}
	return k.Group + "/" + k.Version
}

// Resource is the plural with the group, as in virtualservices.networking.istio.io; the core group has none.
func (k Kind) Resource() string {
	if k.Group == "" {
		return k.Plural
	}
	return k.Plural + "." + k.Group
}

// All lists every kind, in the order in which a bare word finds its meaning.
func All() []Kind { return slices.Collect(each) }

// each is All for those who need only one of them: a search ends where it finds, and the most common come first.
func each(yield func(Kind) bool) {
	const (
		net = "networking.istio.io"
		sec = "security.istio.io"
		gw  = "gateway.networking.k8s.io"
		rb  = "rbac.authorization.k8s.io"
	)
	istio := []string{"v1", "v1beta1", "v1alpha3"}
	_ = yield(of[corev1.Namespace]("", "v1", "Namespace", "namespaces", "ns").cluster()) &&
		yield(of[corev1.Pod]("", "v1", "Pod", "pods", "po")) &&
		yield(of[corev1.Service]("", "v1", "Service", "services", "svc")) &&
		yield(of[corev1.ServiceAccount]("", "v1", "ServiceAccount", "serviceaccounts", "sa")) &&
		yield(of[corev1.ConfigMap]("", "v1", "ConfigMap", "configmaps", "cm")) &&
		yield(of[corev1.Secret]("", "v1", "Secret", "secrets")) &&
		yield(of[corev1.Node]("", "v1", "Node", "nodes", "no").cluster()) &&
		yield(of[corev1.Endpoints]("", "v1", "Endpoints", "endpoints", "ep")) &&
		yield(of[corev1.Event]("", "v1", "Event", "events", "ev")) &&
		yield(of[corev1.PersistentVolumeClaim]("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc")) &&
		yield(of[corev1.ResourceQuota]("", "v1", "ResourceQuota", "resourcequotas", "quota")) &&
		yield(of[corev1.LimitRange]("", "v1", "LimitRange", "limitranges", "limits")) &&
		yield(of[appsv1.Deployment]("apps", "v1", "Deployment", "deployments", "deploy")) &&
		yield(of[appsv1.ReplicaSet]("apps", "v1", "ReplicaSet", "replicasets", "rs")) &&
		yield(of[appsv1.DaemonSet]("apps", "v1", "DaemonSet", "daemonsets", "ds")) &&
		yield(of[appsv1.StatefulSet]("apps", "v1", "StatefulSet", "statefulsets", "sts")) &&
		yield(of[batchv1.Job]("batch", "v1", "Job", "jobs")) &&
		yield(of[batchv1.CronJob]("batch", "v1", "CronJob", "cronjobs", "cj")) &&
		yield(of[discoveryv1.EndpointSlice]("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")) &&
		yield(of[autoscalingv2.HorizontalPodAutoscaler]("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa")) &&
		yield(of[policyv1.PodDisruptionBudget]("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb")) &&
		yield(of[rbacv1.Role](rb, "v1", "Role", "roles")) &&
		yield(of[rbacv1.RoleBinding](rb, "v1", "RoleBinding", "rolebindings")) &&
		yield(of[rbacv1.ClusterRole](rb, "v1", "ClusterRole", "clusterroles").cluster()) &&
		yield(of[rbacv1.ClusterRoleBinding](rb, "v1", "ClusterRoleBinding", "clusterrolebindings").cluster()) &&
		yield(of[netv1.NetworkPolicy]("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol")) &&
		yield(of[netv1.Ingress]("networking.k8s.io", "v1", "Ingress", "ingresses", "ing")) &&
		yield(of[netv1.IngressClass]("networking.k8s.io", "v1", "IngressClass", "ingressclasses").cluster()) &&
		yield(of[gatewayv1.GatewayClass](gw, "v1", "GatewayClass", "gatewayclasses", "gc").cluster().also("v1beta1")) &&
		yield(of[gatewayv1.Gateway](gw, "v1", "Gateway", "gateways", "gtw").also("v1beta1")) &&
		yield(of[gatewayv1.HTTPRoute](gw, "v1", "HTTPRoute", "httproutes").also("v1beta1")) &&
		yield(of[gatewayv1.GRPCRoute](gw, "v1", "GRPCRoute", "grpcroutes").also("v1alpha2")) &&
		yield(of[gatewayv1.TCPRoute](gw, "v1", "TCPRoute", "tcproutes").also("v1alpha2")) &&
		yield(of[gatewayv1.TLSRoute](gw, "v1", "TLSRoute", "tlsroutes").also("v1alpha3", "v1alpha2")) &&
		yield(of[gatewayv1.UDPRoute](gw, "v1", "UDPRoute", "udproutes").also("v1alpha2")) &&
		yield(of[gatewayv1.ReferenceGrant](gw, "v1", "ReferenceGrant", "referencegrants", "refgrant").also("v1beta1")) &&
		yield(of[gatewayv1.BackendTLSPolicy](gw, "v1", "BackendTLSPolicy", "backendtlspolicies", "btlspolicy").also("v1alpha3")) &&
		yield(of[gatewayv1.ListenerSet](gw, "v1", "ListenerSet", "listenersets", "lset")) &&
		yield(of[networkingv1.Gateway](net, "v1", "Gateway", "gateways", "gw").versions(istio)) &&
		yield(of[networkingv1.VirtualService](net, "v1", "VirtualService", "virtualservices", "vs").versions(istio)) &&
		yield(of[networkingv1.DestinationRule](net, "v1", "DestinationRule", "destinationrules", "dr").versions(istio)) &&
		yield(of[networkingv1.ServiceEntry](net, "v1", "ServiceEntry", "serviceentries", "se").versions(istio)) &&
		yield(of[networkingv1.WorkloadEntry](net, "v1", "WorkloadEntry", "workloadentries", "we").versions(istio)) &&
		yield(of[networkingv1.WorkloadGroup](net, "v1", "WorkloadGroup", "workloadgroups", "wg").versions(istio)) &&
		yield(of[networkingv1.Sidecar](net, "v1", "Sidecar", "sidecars").versions(istio)) &&
		yield(of[networkingv1beta1.ProxyConfig](net, "v1beta1", "ProxyConfig", "proxyconfigs")) &&
		yield(of[networkingv1alpha3.EnvoyFilter](net, "v1alpha3", "EnvoyFilter", "envoyfilters")) &&
		yield(of[securityv1.AuthorizationPolicy](sec, "v1", "AuthorizationPolicy", "authorizationpolicies", "ap").also("v1beta1")) &&
		yield(of[securityv1.PeerAuthentication](sec, "v1", "PeerAuthentication", "peerauthentications", "pa").also("v1beta1")) &&
		yield(of[securityv1.RequestAuthentication](sec, "v1", "RequestAuthentication", "requestauthentications", "ra").also("v1beta1")) &&
		yield(of[telemetryv1.Telemetry]("telemetry.istio.io", "v1", "Telemetry", "telemetries", "telemetry").also("v1alpha1"))
}

// Find gives the kind that a person means by word: Pod, pods, po, virtualservices.networking.istio.io, Gateway.networking.istio.io.
func Find(word string) (Kind, bool) {
	name, group, qualified := strings.Cut(strings.ToLower(word), ".")
	for k := range each {
		// A version may stand between, as in gateways.v1.networking.istio.io.
		if qualified && group != k.Group && !slices.ContainsFunc(k.Versions, func(v string) bool { return group == v+"."+k.Group }) {
			continue
		}
		if name == strings.ToLower(k.Kind) || name == k.Plural || slices.Contains(k.Short, name) {
			return k, true
		}
	}
	return Kind{}, false
}

// FindGVK gives the kind of an object that says apiVersion and kind.
func FindGVK(apiVersion, kind string) (Kind, bool) {
	group, version, ok := strings.Cut(apiVersion, "/")
	if !ok {
		group, version = "", apiVersion
	}
	for k := range each {
		if k.Kind == kind && k.Group == group && slices.Contains(k.Versions, version) {
			return k, true
		}
	}
	return Kind{}, false
}

// Of is the kind of o. It panics on a type that All does not list, which only our own code can make.
func Of(o Object) Kind {
	t := reflect.TypeOf(o)
	for k := range each {
		if k.typ == t {
			return k
		}
	}
	panic("kinds: no kind has the type " + t.String())
}

func of[T any, P interface {
	*T
	Object
}](group, version, kind, plural string, short ...string) Kind {
	k := Kind{
		Group: group, Version: version, Kind: kind, Plural: plural, Short: short,
		Versions: []string{version}, Namespaced: true, typ: reflect.TypeFor[P](),
	}
	api := k.APIVersion()
	k.New = func() Object {
		o := P(new(T))
		setType(o, api, kind)
		return o
	}
	return k
}

func (k Kind) cluster() Kind              { k.Namespaced = false; return k }
func (k Kind) also(vs ...string) Kind     { k.Versions = append(k.Versions, vs...); return k }
func (k Kind) versions(all []string) Kind { k.Versions = all; return k }
