package push

import (
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/policy"
	"github.com/ambit-mesh/ambit/control/internal/routing"
	"github.com/ambit-mesh/ambit/control/internal/status"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// needs are what must have got to node proxies for policies and entries to be in force. What is enforced nowhere needs
// nothing.
func (d *deriver) needs() collection.Collection[status.Need] {
	kind := collection.Kind[status.Need]{Key: status.Need.Key, Equal: status.SameNeed}
	policies := []string{mesh.TypeAuthorization, mesh.TypeAddress} // workloads refer to policies
	enforced := func(o kinds.Object, r policy.Result) (status.Need, bool) {
		n := status.Need{Of: o, Types: policies}
		if r.Wire != nil {
			n.Names = []string{policy.Key(r.Wire)}
		}
		return n, !r.NoEffect()
	}
	return collection.Join(status.SameNeed,
		collection.Map(d.AuthorizationPolicies, kind, func(_ *collection.Read, p *securityv1.AuthorizationPolicy) (status.Need, bool) {
			n, ok := enforced(p, policy.FromAuthorizationPolicy(p, d.RootNamespace))
			n.Selects = len(p.Spec.GetSelector().GetMatchLabels()) > 0
			return n, ok
		}),
		collection.Map(d.PeerAuthentications, kind, func(r *collection.Read, p *securityv1.PeerAuthentication) (status.Need, bool) {
			n, _ := enforced(p, d.peer(r, p))
			return n, policy.HasEffect(p, d.RootNamespace)
		}),
		collection.Map(d.ServiceEntries, kind, func(_ *collection.Read, s *networkingv1.ServiceEntry) (status.Need, bool) {
			n := status.Need{Of: s, Types: []string{mesh.TypeAddress}}
			for _, host := range s.Spec.Hosts {
				n.Names = append(n.Names, s.Namespace+"/"+strings.ToLower(host))
			}
			return n, true
		}),
		collection.Map(d.WorkloadEntries, kind, func(_ *collection.Read, w *networkingv1.WorkloadEntry) (status.Need, bool) {
			return status.Need{Of: w, Types: []string{mesh.TypeAddress}, Names: []string{d.EntryUID(w)}}, true
		}))
}

// statuses say what became of policies, of entries and of what asks for a waypoint.
func (d *deriver) statuses(needs collection.Collection[status.Need]) collection.Collection[status.Status] {
	kind := collection.Kind[status.Status]{Key: status.Status.Key, Equal: status.Same}
	// forced adds whether the object is in force where that is a question, and that its file is broken.
	forced := func(r *collection.Read, s status.Status) status.Status {
		if _, asks := collection.Get(r, needs, s.Key()); !asks {
			return s
		}
		f, known := collection.Get(r, d.forces, s.Key())
		if stale, broken := collection.Get(r, d.stale, s.Key()); broken && known {
			f.Condition = stale.Told(f.Condition)
			s = stale.Of(s)
		}
		return s.With(f, known)
	}
	entry := func(r *collection.Read, o kinds.Object, traffic string) status.Status {
		s, asks := status.OfBinding(o, d.bind(r, o, traffic))
		if !asks {
			s = status.Of(o)
		}
		return forced(r, s)
	}
	return collection.Join(status.Same,
		collection.Map(d.AuthorizationPolicies, kind, func(r *collection.Read, p *securityv1.AuthorizationPolicy) (status.Status, bool) {
			result := policy.FromAuthorizationPolicy(p, d.RootNamespace)
			s, ok := status.OfPolicy(p, result)
			s = forced(r, s)
			if result.Wire.GetDryRun() {
				s = s.Tried()
			}
			return s, ok
		}),
		collection.Map(d.PeerAuthentications, kind, func(r *collection.Read, p *securityv1.PeerAuthentication) (status.Status, bool) {
			s, ok := status.OfPolicy(p, d.peer(r, p))
			return forced(r, s), ok
		}),
		collection.Map(d.Services, kind, func(r *collection.Read, s *corev1.Service) (status.Status, bool) {
			return status.OfBinding(s, d.bind(r, s, "service"))
		}),
		collection.Map(d.ServiceEntries, kind, func(r *collection.Read, s *networkingv1.ServiceEntry) (status.Status, bool) {
			var taken []string
			for _, host := range s.Spec.Hosts {
				key := s.Namespace + "/" + strings.ToLower(host)
				if svc, ok := collection.Get(r, d.services, key); ok && svc.Source != s.Namespace+"/"+s.Name {
					taken = append(taken, host+" (of "+svc.Source+")")
				}
			}
			assigned, _ := collection.Get(r, d.assigned, s.Namespace+"/"+s.Name)
			st := ofEntry(entry(r, s, "service"), s, assigned)
			if len(taken) > 0 {
				st = st.Overruled(taken)
			}
			return st, true
		}),
		collection.Map(d.WorkloadEntries, kind, func(r *collection.Read, w *networkingv1.WorkloadEntry) (status.Status, bool) {
			return entry(r, w, "workload"), true
		}),
		collection.Map(d.WorkloadGroups, kind, func(_ *collection.Read, g *networkingv1.WorkloadGroup) (status.Status, bool) {
			return status.OfRouting(g, routing.NotYet(g))
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
		if stale, broken := collection.Get(r, d.stale, status.Of(o).Key()); broken {
			why = append(why, stale.Told(status.Condition{Message: "in force"}).Message)
		}
		return status.OfRouting(o, why)
	}
	return collection.Join(status.Same,
		told(d.Gateways, tell), told(d.VirtualServices, tell), told(d.DestinationRules, tell),
		told(d.RequestAuthentications, tell))
}

// told is what is to be said of every object of a kind.
func told[T kinds.Object](all collection.Collection[T], tell func(*collection.Read, kinds.Object) (status.Status, bool)) collection.Collection[status.Status] {
	kind := collection.Kind[status.Status]{Key: status.Status.Key, Equal: status.Same}
	return collection.Map(all, kind, func(r *collection.Read, o T) (status.Status, bool) { return tell(r, o) })
}
