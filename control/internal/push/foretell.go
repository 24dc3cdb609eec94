package push

import (
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/policy"
	"github.com/ambit-mesh/ambit/control/internal/routing"
	"github.com/ambit-mesh/ambit/control/internal/status"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Foretell tells what of an object will have no effect, or another than its author may think, whatever else there is. Its
// status will say the same once it is written.
func Foretell(o kinds.Object, rootNamespace string) []string {
	var s status.Status
	switch o := o.(type) {
	case *securityv1.AuthorizationPolicy:
		s, _ = status.OfPolicy(o, policy.FromAuthorizationPolicy(o, rootNamespace))
	case *securityv1.PeerAuthentication:
		s, _ = status.OfPolicy(o, policy.FromPeerAuthentication(o, nil, nil, rootNamespace))
	case *networkingv1.ServiceEntry:
		s = ofEntry(status.Of(o), o, ambient.Assigned{})
	default:
		return routing.NotYet(o)
	}
	return s.Warnings()
}

// ofEntry adds to a status what of a ServiceEntry node proxies cannot do.
func ofEntry(s status.Status, e *networkingv1.ServiceEntry, a ambient.Assigned) status.Status {
	return s.OfEntry(a, ambient.WiderThanAsked(e.Spec.ExportTo, e.Namespace), e.Spec.Resolution == networkingv1alpha3.ServiceEntry_DYNAMIC_DNS, ambient.Sockets(e))
}
