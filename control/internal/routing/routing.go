// Package routing turns Gateways and VirtualServices into what each L7 proxy must know.
package routing

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/delta"
)

// Inputs are what routes are made of. The collections are of one graph.
type Inputs struct {
	// ClusterDomain completes short names. Default cluster.local.
	ClusterDomain string
	// TrustDomain of workloads that name none. Default cluster.local.
	TrustDomain string
	// RootNamespace is where rules for all namespaces are. Default istio-system.
	RootNamespace string

	Pods             collection.Collection[*corev1.Pod]
	KubeServices     collection.Collection[*corev1.Service]
	Secrets          collection.Collection[*corev1.Secret]
	Namespaces       collection.Collection[*corev1.Namespace]
	Gateways         collection.Collection[*networkingv1.Gateway]
	VirtualServices  collection.Collection[*networkingv1.VirtualService]
	DestinationRules collection.Collection[*networkingv1.DestinationRule]
	// Kinds of the Gateway API.
	KubeGateways    collection.Collection[*gatewayv1.Gateway]
	HTTPRoutes      collection.Collection[*gatewayv1.HTTPRoute]
	GRPCRoutes      collection.Collection[*gatewayv1.GRPCRoute]
	TLSRoutes       collection.Collection[*gatewayv1.TLSRoute]
	TCPRoutes       collection.Collection[*gatewayv1.TCPRoute]
	ReferenceGrants collection.Collection[*gatewayv1.ReferenceGrant]
	// Services and Workloads are those that node proxies know: service entries and workload entries are among them.
	Services  collection.Collection[*workload.Service]
	Workloads collection.Collection[*workload.Workload]
}

// NotYet tells what of an object is not in force in this version, as far as it can be told without a proxy.
func NotYet(o metav1.Object) []string {
	var why []string
	switch o := o.(type) {
	case *networkingv1.VirtualService:
		delegate := len(o.Spec.GetHosts()) == 0 // in force where others lead to it
		if g := o.Spec.GetGateways(); !delegate && (len(g) == 0 || slices.Contains(g, "mesh")) {
			why = append(why, "traffic within the mesh meets routes at waypoints only, which this version does not run: in force for gateways alone")
		}
	case *networkingv1.DestinationRule:
		why = append(why, unserved(o)...)
	case *networkingv1.WorkloadGroup:
		why = append(why, "machines do not register themselves in this version; write a WorkloadEntry for each, with the labels of the group's template")
	case *securityv1.RequestAuthentication:
		why = append(why, "tokens of requests are not checked by this version")
	}
	return why
}

// Problem is something in an object that is not in force, and why.
type Problem struct {
	Object string // "VirtualService/namespace/name"
	Why    string
}

// Outputs are the resources to serve, by type URL, and the problems met.
type Outputs struct {
	Resources map[string]collection.Collection[delta.Resource]
	Plans     collection.Collection[*Plan]
	// Judge says what became of objects of the Gateway API.
	Judge Judge
}

// New derives the resources. The functions behind it are pure but for what they read of the inputs.
func New(in Inputs) Outputs {
	if in.ClusterDomain == "" {
		in.ClusterDomain = mesh.ClusterDomain
	}
	if in.TrustDomain == "" {
		in.TrustDomain = mesh.TrustDomain
	}
	if in.RootNamespace == "" {
		in.RootNamespace = mesh.SystemNamespace
	}
	b := &builder{
		Inputs:       in,
		bySelector:   collection.NewIndex(in.Gateways, selectorKeys),
		byChoice:     collection.NewIndex(in.KubeServices, choices),
		byGateway:    collection.NewIndex(in.VirtualServices, gatewaysOf),
		byHostname:   collection.NewIndex(in.Services, func(s *workload.Service) []string { return []string{s.GetHostname()} }),
		byService:    collection.NewIndex(in.Workloads, servicesOf),
		byPod:        collection.NewIndex(in.Workloads, podKeys),
		rulesForHost: collection.NewIndex(in.DestinationRules, ruleHosts(in.ClusterDomain)),
	}
	b.kubeByService = collection.NewIndex(in.KubeGateways, func(g *gatewayv1.Gateway) []string {
		if !Served(g) {
			return nil
		}
		return []string{b.serviceOf(g)}
	})
	b.grantsIn = collection.NewIndex(in.ReferenceGrants, func(g *gatewayv1.ReferenceGrant) []string { return []string{g.Namespace} })
	b.httpByGateway = collection.NewIndex(in.HTTPRoutes, gatewaysOfRoute(func(o *gatewayv1.HTTPRoute) []gatewayv1.ParentReference { return o.Spec.ParentRefs }))
	b.grpcByGateway = collection.NewIndex(in.GRPCRoutes, gatewaysOfRoute(func(o *gatewayv1.GRPCRoute) []gatewayv1.ParentReference { return o.Spec.ParentRefs }))
	b.tlsByGateway = collection.NewIndex(in.TLSRoutes, gatewaysOfRoute(func(o *gatewayv1.TLSRoute) []gatewayv1.ParentReference { return o.Spec.ParentRefs }))
	b.tcpByGateway = collection.NewIndex(in.TCPRoutes, gatewaysOfRoute(func(o *gatewayv1.TCPRoute) []gatewayv1.ParentReference { return o.Spec.ParentRefs }))
	proxies := collection.Map(in.Pods, collection.Kind[*Proxy]{Key: func(p *Proxy) string { return p.Name }, Equal: sameProxy}, b.proxy)
	plans := collection.Map(proxies, collection.Kind[*Plan]{Key: func(p *Plan) string { return p.Proxy.Name }, Equal: samePlan}, b.plan)
	backends := refs(plans)
	resources := collection.Kind[delta.Resource]{
		Key:   func(r delta.Resource) string { return r.Name },
		Equal: func(x, y delta.Resource) bool { return x.Name == y.Name && x.Version == y.Version },
	}
	return Outputs{Plans: plans, Judge: Judge{b}, Resources: map[string]collection.Collection[delta.Resource]{
		mesh.TypeListener: collection.MapMany(plans, resources, func(_ *collection.Read, p *Plan) []delta.Resource {
			return each(p.Listeners, func(l *l7.Listener) delta.Resource { return resource(l.GetName(), l) })
		}),
		mesh.TypeRoute: collection.MapMany(plans, resources, func(_ *collection.Read, p *Plan) []delta.Resource {
			return each(p.Routes, func(r *l7.Route) delta.Resource { return resource(r.GetName(), r) })
		}),
		mesh.TypeBackend: collection.Map(backends, resources, func(r *collection.Read, ref Ref) (delta.Resource, bool) {
			return resource(ref.Name(), b.backend(r, ref)), true
		}),
		mesh.TypeSecret: collection.Map(b.secretRefs(plans, backends), resources, func(r *collection.Read, ref SecretRef) (delta.Resource, bool) {
			s, ok := b.secret(r, ref)
			if !ok {
				return delta.Resource{}, false
			}
			return resource(ref.Name(), s), true
		}),
	}}
}

// Visible reports whether a resource is for this pod running as this service account. The names of resources begin
// with the proxy they are for: a certificate is never sent to anybody else.
func Visible(namespace, serviceAccount, pod, resource string) bool {
	return pod != "" && strings.HasPrefix(resource, proxyName(namespace, serviceAccount, pod)+"/")
}

func proxyName(namespace, serviceAccount, pod string) string {
	return "Pod/" + namespace + "/" + serviceAccount + "/" + pod
}

type builder struct {
	Inputs
	bySelector   *collection.Index[string, *networkingv1.Gateway]
	byChoice     *collection.Index[string, *corev1.Service]
	byGateway    *collection.Index[string, *networkingv1.VirtualService]
	byHostname   *collection.Index[string, *workload.Service]
	byService    *collection.Index[string, *workload.Workload]
	byPod        *collection.Index[string, *workload.Workload]
	rulesForHost *collection.Index[string, *networkingv1.DestinationRule]

	kubeByService *collection.Index[string, *gatewayv1.Gateway]
	grantsIn      *collection.Index[string, *gatewayv1.ReferenceGrant]
	httpByGateway *collection.Index[string, *gatewayv1.HTTPRoute]
	grpcByGateway *collection.Index[string, *gatewayv1.GRPCRoute]
	tlsByGateway  *collection.Index[string, *gatewayv1.TLSRoute]
	tcpByGateway  *collection.Index[string, *gatewayv1.TCPRoute]
}

func refs(plans collection.Collection[*Plan]) collection.Collection[Ref] {
	return collection.MapMany(plans, collection.Kind[Ref]{Key: Ref.Name, Equal: func(x, y Ref) bool { return x == y }},
		func(_ *collection.Read, p *Plan) []Ref { return p.Backends })
}

// resource wraps a message; its version is a hash of its bytes, so that what is equal is not sent again.
func resource(name string, m proto.Message) delta.Resource {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("routing: marshal our own %T: %v", m, err))
	}
	return delta.Resource{
		Name: name, Version: fmt.Sprintf("%016x", xxhash.Sum64(b)),
		Body: &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b},
	}
}

func each[I, O any](in []I, f func(I) O) []O {
	out := make([]O, len(in))
	for i, x := range in {
		out[i] = f(x)
	}
	return out
}
