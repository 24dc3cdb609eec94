package push

import (
	"net/netip"
	"strconv"

	"google.golang.org/protobuf/proto"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/policy"
	"github.com/ambit-mesh/ambit/control/internal/status"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// deriver connects the pure functions of ambient and policy to collections.
type deriver struct {
	ambient.Config
	*source.Objects
	graph     *collection.Graph
	forces    *collection.Set[status.Force]
	stale     *collection.Set[status.Stale]
	assigned  *collection.Set[ambient.Assigned]
	waypoints collection.Collection[*ambient.Waypoint]
	services  collection.Collection[*ambient.Service]

	choosing *collection.Index[label, chooser]
	peersIn  *collection.Index[string, *securityv1.PeerAuthentication] // by namespace; those for all of it
}

func newDeriver(st *source.Store, c ambient.Config) *deriver {
	d := &deriver{Config: c, Objects: st.Objects, graph: st.Graph}
	d.forces = collection.NewSet(d.graph, func(f status.Force) string { return f.Key }, func(a, b status.Force) bool { return a == b })
	d.forces.MarkSynced()
	d.stale = collection.NewSet(d.graph, status.Stale.Key, func(a, b status.Stale) bool {
		return a.Key() == b.Key() && a.Why == b.Why && a.Instead == b.Instead
	})
	d.stale.MarkSynced()
	d.assigned = collection.NewSet(d.graph, func(a ambient.Assigned) string { return a.Entry }, ambient.SameAssigned)
	d.assigned.MarkSynced()
	d.peersIn = collection.NewIndex(d.PeerAuthentications, func(p *securityv1.PeerAuthentication) []string {
		if len(p.Spec.GetSelector().GetMatchLabels()) > 0 {
			return nil
		}
		return []string{p.Namespace}
	})
	d.waypoints = collection.Map(d.KubeGateways,
		collection.Kind[*ambient.Waypoint]{Key: (*ambient.Waypoint).Key, Equal: func(a, b *ambient.Waypoint) bool { return a == b }},
		func(r *collection.Read, g *gatewayv1.Gateway) (*ambient.Waypoint, bool) {
			class, _ := collection.Get(r, d.GatewayClasses, string(g.Spec.GatewayClassName))
			w := c.FromGateway(g, class)
			return w, w != nil
		})
	kind := collection.Kind[*ambient.Service]{Key: (*ambient.Service).Key, Equal: sameService}
	d.services = collection.Join(sameService,
		collection.Map(d.Services, kind, func(r *collection.Read, s *corev1.Service) (*ambient.Service, bool) {
			out := c.FromService(s, d.attached(r, s))
			return out, out != nil
		}),
		collection.MapMany(d.ServiceEntries, kind, func(r *collection.Read, se *networkingv1.ServiceEntry) []*ambient.Service {
			at := d.attached(r, se)
			at.Assigned, _ = collection.Get(r, d.assigned, se.Namespace+"/"+se.Name)
			return c.FromServiceEntry(se, at)
		}))
	d.choosing = d.choosers()
	return d
}

func sameService(a, b *ambient.Service) bool {
	if len(a.Selector) != len(b.Selector) || len(a.Ports) != len(b.Ports) || a.Entry != b.Entry || a.Source != b.Source {
		return false
	}
	for k, v := range a.Selector {
		if w, ok := b.Selector[k]; !ok || v != w {
			return false
		}
	}
	for i := range a.Ports {
		if a.Ports[i] != b.Ports[i] {
			return false
		}
	}
	return proto.Equal(a.Wire, b.Wire)
}

func (d *deriver) namespace(r *collection.Read, name string) *corev1.Namespace {
	ns, _ := collection.Get(r, d.Namespaces, name)
	return ns
}

func (d *deriver) attached(r *collection.Read, o kinds.Object) ambient.Attached {
	return ambient.Attached{Namespace: d.namespace(r, o.GetNamespace()), Waypoint: d.bind(r, o, "service").Waypoint}
}

// around gathers what the surroundings of a workload say about it.
func (d *deriver) around(r *collection.Read, o kinds.Object, labels map[string]string, node string) ambient.Around {
	ns := o.GetNamespace()
	a := ambient.Around{Waypoint: d.bind(r, o, "workload").Waypoint}
	services, policies, peers := d.chosen(r, ns, labels)
	for _, s := range services {
		if s.Selects(ns, labels) {
			a.Services = append(a.Services, s)
		}
	}
	a.Policies = append(policy.ForLabels(policies, ns, labels, d.RootNamespace),
		policy.ForWorkload(append(peers, scoped(r, d.peersIn, ns, d.RootNamespace)...), ns, labels, d.RootNamespace)...)
	if node != "" {
		a.Node, _ = collection.Get(r, d.Nodes, node)
	}
	return a
}

// scoped are the objects of a namespace and of the root namespace.
func scoped[T any](r *collection.Read, ix *collection.Index[string, T], ns, root string) []T {
	all := collection.Lookup(r, ix, ns)
	if ns != root {
		all = append(all, collection.Lookup(r, ix, root)...)
	}
	return all
}

func (d *deriver) workloads() collection.Collection[*workload.Workload] {
	workloadKind := collection.Kind[*workload.Workload]{
		Key: (*workload.Workload).GetUid, Equal: func(a, b *workload.Workload) bool { return proto.Equal(a, b) },
	}
	podsAt := collection.NewIndex(d.Pods, ambient.PodAddresses)
	byObject := collection.NewIndex(d.services, func(s *ambient.Service) []string { return []string{s.Source} })
	return collection.Join(workloadKind.Equal,
		collection.Map(d.Pods, workloadKind, func(r *collection.Read, p *corev1.Pod) (*workload.Workload, bool) {
			if !ambient.Alive(p) {
				return nil, false
			}
			w := d.FromPod(p, d.around(r, p, p.Labels, p.Spec.NodeName))
			return w, w != nil
		}),
		collection.Map(d.WorkloadEntries, workloadKind, func(r *collection.Read, we *networkingv1.WorkloadEntry) (*workload.Workload, bool) {
			w := d.FromWorkloadEntry(we, d.around(r, we, ambient.EntryLabels(we), ""))
			return w, w != nil
		}),
		collection.MapMany(d.ServiceEntries, workloadKind, func(r *collection.Read, se *networkingv1.ServiceEntry) []*workload.Workload {
			var own []*ambient.Service
			for _, s := range collection.Lookup(r, byObject, se.Namespace+"/"+se.Name) {
				if s.Entry {
					own = append(own, s)
				}
			}
			return d.FromServiceEndpoints(se, own, ambient.Around{Waypoint: d.bind(r, se, "workload").Waypoint})
		}),
		collection.MapMany(d.EndpointSlices, workloadKind, func(r *collection.Read, es *discoveryv1.EndpointSlice) []*workload.Workload {
			name := es.Labels[discoveryv1.LabelServiceName]
			svc, ok := collection.Get(r, d.services, es.Namespace+"/"+d.Hostname(name, es.Namespace))
			if !ok {
				return nil
			}
			return d.FromEndpointSlice(es, svc, func(address string) *workload.Workload {
				return d.podAt(r, collection.Lookup(r, podsAt, address))
			})
		}))
}

// podAt is the workload of the pod that has an address: of several the one that is not about to end.
func (d *deriver) podAt(r *collection.Read, pods []*corev1.Pod) *workload.Workload {
	if len(pods) == 0 {
		return nil
	}
	p := pods[0]
	for _, other := range pods {
		if other.DeletionTimestamp == nil {
			p = other
		}
	}
	var around ambient.Around
	around.Node, _ = collection.Get(r, d.Nodes, p.Spec.NodeName)
	return d.FromPod(p, around)
}

func (d *deriver) policies() collection.Collection[*authorization.Authorization] {
	same := func(a, b *authorization.Authorization) bool { return proto.Equal(a, b) }
	kind := collection.Kind[*authorization.Authorization]{Key: policy.Key, Equal: same}
	strict := collection.NewSet(d.graph, policy.Key, same)
	strict.Put(policy.Strict(d.RootNamespace))
	strict.MarkSynced()
	return collection.Join(same, collection.Collection[*authorization.Authorization](strict),
		collection.Map(d.AuthorizationPolicies, kind, func(_ *collection.Read, p *securityv1.AuthorizationPolicy) (*authorization.Authorization, bool) {
			w := policy.FromAuthorizationPolicy(p, d.RootNamespace).Wire
			return w, w != nil
		}),
		collection.Map(d.PeerAuthentications, kind, func(r *collection.Read, p *securityv1.PeerAuthentication) (*authorization.Authorization, bool) {
			w := d.peer(r, p).Wire
			return w, w != nil
		}))
}

// alias names a resource by an address: "network/ip", or "network/ip/length" for a range.
func alias(network string, address []byte, length *uint32) (string, bool) {
	a, ok := netip.AddrFromSlice(address)
	if !ok {
		return "", false
	}
	s := network + "/" + a.String()
	if length != nil {
		s += "/" + strconv.FormatUint(uint64(*length), 10)
	}
	return s, true
}

func workloadAliases(w *workload.Workload) (all []string) {
	if w.NetworkMode == workload.NetworkMode_HOST_NETWORK {
		return nil // others share its addresses
	}
	for _, a := range w.Addresses {
		if s, ok := alias(w.Network, a, nil); ok {
			all = append(all, s)
		}
	}
	return all
}

func serviceAliases(s *workload.Service) (all []string) {
	for _, a := range s.Addresses {
		if s, ok := alias(a.Network, a.Address, a.Length); ok {
			all = append(all, s)
		}
	}
	return all
}
