package status

import (
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Listener is what is to be said of one listener of a Gateway of Kubernetes.
type Listener struct {
	Name       gatewayv1.SectionName
	Kinds      []string
	Attached   int
	Conditions []Condition
}

// gateway is the status of a Gateway.
func (s Status) gateway(since func(Condition) time.Time) gatewayv1.GatewayStatus {
	out := gatewayv1.GatewayStatus{Conditions: s.kube(since)}
	if s.Address != "" {
		kind := gatewayv1.HostnameAddressType
		out.Addresses = []gatewayv1.GatewayStatusAddress{{Type: &kind, Value: s.Address}}
	}
	for _, l := range s.Listeners {
		st := gatewayv1.ListenerStatus{Name: l.Name, AttachedRoutes: int32(l.Attached), SupportedKinds: []gatewayv1.RouteGroupKind{}}
		for _, k := range l.Kinds {
			group := gatewayv1.Group(gatewayv1.GroupName)
			st.SupportedKinds = append(st.SupportedKinds, gatewayv1.RouteGroupKind{Group: &group, Kind: gatewayv1.Kind(k)})
		}
		st.Conditions = Status{Generation: s.Generation, Conditions: l.Conditions}.kube(within(since, listener(l.Name)))
		out.Listeners = append(out.Listeners, st)
	}
	return out
}

// route is the status of a route of any kind.
func (s Status) route(since func(Condition) time.Time) gatewayv1.RouteStatus {
	out := gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{}}
	for i, p := range s.Parents {
		here := s
		if i < len(s.AtParents) {
			here.Conditions = s.AtParents[i]
		}
		out.Parents = append(out.Parents, gatewayv1.RouteParentStatus{
			ParentRef: p, ControllerName: controller, Conditions: here.kube(within(since, parent(i))),
		})
	}
	return out
}

// within keeps conditions of equal types at several places apart.
func within(since func(Condition) time.Time, place string) func(Condition) time.Time {
	return func(c Condition) time.Time {
		c.Type = at(place, c.Type)
		return since(c)
	}
}
