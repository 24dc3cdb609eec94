package push

import (
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/policy"
	"github.com/ambit-mesh/ambit/control/internal/routing"
	"github.com/ambit-mesh/ambit/control/internal/status"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// statuses say what became of policies and of what asks for a waypoint.
func (d *deriver) statuses() collection.Collection[status.Status] {
	kind := collection.Kind[status.Status]{Key: status.Status.Key, Equal: status.Same}
	bound := func(r *collection.Read, o kinds.Object, traffic string) (status.Status, bool) {
		return status.OfBinding(o, d.bind(r, o, traffic))
	}
	return collection.Join(status.Same,
		collection.Map(d.AuthorizationPolicies, kind, func(_ *collection.Read, p *securityv1.AuthorizationPolicy) (status.Status, bool) {
			return status.OfPolicy(p, policy.FromAuthorizationPolicy(p, d.RootNamespace))
		}),
		collection.Map(d.PeerAuthentications, kind, func(r *collection.Read, p *securityv1.PeerAuthentication) (status.Status, bool) {
			return status.OfPolicy(p, d.peer(r, p))
		}),
		collection.Map(d.Services, kind, func(r *collection.Read, s *corev1.Service) (status.Status, bool) {
			return bound(r, s, "service")
		}),
		collection.Map(d.ServiceEntries, kind, func(r *collection.Read, s *networkingv1.ServiceEntry) (status.Status, bool) {
			return bound(r, s, "service")
		}),
		collection.Map(d.WorkloadEntries, kind, func(r *collection.Read, w *networkingv1.WorkloadEntry) (status.Status, bool) {
			return bound(r, w, "workload")
		}))
}

func (d *deriver) peer(r *collection.Read, p *securityv1.PeerAuthentication) policy.Result {
	ns, meshWide := policy.Parents(scoped(r, d.peersIn, p.Namespace, d.RootNamespace), p.Namespace, d.RootNamespace)
	return policy.FromPeerAuthentication(p, ns, meshWide, d.RootNamespace)
}

// bind finds the waypoint that an object asks for.
func (d *deriver) bind(r *collection.Read, o kinds.Object, traffic string) ambient.Binding {
	return ambient.Bind(o, d.namespace(r, o.GetNamespace()), traffic, func(key string) *ambient.Waypoint {
		w, _ := collection.Get(r, d.waypoints, key)
		return w
	})
}

// trouble is a problem that a proxy has with an object.
type trouble struct{ proxy, object, why string }

// routingStatuses say what of Gateways, VirtualServices and DestinationRules is not in force.
func (d *deriver) routingStatuses(plans collection.Collection[*routing.Plan]) collection.Collection[status.Status] {
	troubles := collection.MapMany(plans, collection.Kind[trouble]{
		Key:   func(t trouble) string { return t.proxy + " " + t.object + " " + t.why },
		Equal: func(a, b trouble) bool { return a == b },
	}, func(_ *collection.Read, p *routing.Plan) []trouble {
		seen := map[trouble]bool{}
		var all []trouble
		for _, x := range p.Problems {
			if t := (trouble{p.Proxy.Name, x.Object, x.Why}); !seen[t] {
				seen[t] = true
				all = append(all, t)
			}
		}
		return all
	})
	of := collection.NewIndex(troubles, func(t trouble) []string { return []string{t.object} })
	tell := func(r *collection.Read, o kinds.Object) (status.Status, bool) {
		why := routing.NotYet(o)
		k := kinds.Of(o)
		for _, t := range collection.Lookup(r, of, k.Kind+"/"+o.GetNamespace()+"/"+o.GetName()) {
			// Several pods of a gateway say the same; a Gateway of Kubernetes may have the name of another.
			if k.Group == "networking.istio.io" && !slices.Contains(why, t.why) {
				why = append(why, t.why)
			}
		}
		slices.Sort(why)
		return status.OfRouting(o, why)
	}
	return collection.Join(status.Same,
		told(d.Gateways, tell), told(d.VirtualServices, tell), told(d.DestinationRules, tell),
		told(d.KubeGateways, tell), told(d.HTTPRoutes, tell), told(d.RequestAuthentications, tell))
}

// told is what is to be said of every object of a kind.
func told[T kinds.Object](all collection.Collection[T], tell func(*collection.Read, kinds.Object) (status.Status, bool)) collection.Collection[status.Status] {
	kind := collection.Kind[status.Status]{Key: status.Status.Key, Equal: status.Same}
	return collection.Map(all, kind, func(r *collection.Read, o T) (status.Status, bool) { return tell(r, o) })
}
