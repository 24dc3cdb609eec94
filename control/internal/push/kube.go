package push

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/routing"
	"github.com/ambit-mesh/ambit/control/internal/status"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// kubeStatuses say what became of objects of the Gateway API.
func (d *deriver) kubeStatuses(j routing.Judge) collection.Collection[status.Status] {
	return collection.Join(status.Same,
		told(d.KubeGateways, func(r *collection.Read, o kinds.Object) (status.Status, bool) {
			g, ok := o.(*gatewayv1.Gateway)
			if !ok {
				return status.Status{}, false
			}
			if s, ours := j.Gateway(r, g); ours {
				return kubeStatus(o, s), true
			}
			return status.OfRouting(o, []string{"no proxy of this version serves Gateways of class " + string(g.Spec.GatewayClassName) + "; class istio is served by the ingress gateway"})
		}),
		judged(d.HTTPRoutes, j.HTTPRoute), judged(d.GRPCRoutes, j.GRPCRoute), judged(d.TLSRoutes, j.TLSRoute), judged(d.TCPRoutes, j.TCPRoute))
}

// judged is what is to be said of every route of a kind. One whose parents are all others' is not spoken of.
func judged[T kinds.Object](all collection.Collection[T], judge func(*collection.Read, T) (routing.KubeStatus, bool)) collection.Collection[status.Status] {
	return collection.Map(all, collection.Kind[status.Status]{Key: status.Status.Key, Equal: status.Same},
		func(r *collection.Read, o T) (status.Status, bool) {
			s, ours := judge(r, o)
			if !ours {
				return status.OfRouting(o, []string{"none of its parents is a Gateway of class istio, which alone are served by this version"})
			}
			return kubeStatus(o, s), true
		})
}

func kubeStatus(o kinds.Object, k routing.KubeStatus) status.Status {
	s := status.Of(o)
	s.Conditions, s.Address = conditions(k.Verdicts), k.Address
	for _, l := range k.Listeners {
		s.Listeners = append(s.Listeners, status.Listener{Name: l.Name, Kinds: l.Kinds, Attached: l.Attached, Conditions: conditions(l.Verdicts)})
	}
	for _, p := range k.Parents {
		s.Parents = append(s.Parents, p.Ref)
		s.AtParents = append(s.AtParents, conditions(p.Verdicts))
	}
	return s
}

func conditions(vs []routing.Verdict) []status.Condition {
	var out []status.Condition
	for _, v := range vs {
		out = append(out, status.Condition{Type: v.Type, True: v.True, Reason: v.Reason, Message: v.Message})
	}
	return out
}
