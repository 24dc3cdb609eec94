package push

import (
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/policy"
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
