// Package status tells what became of the objects that people write.
package status

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	metav1alpha1 "istio.io/api/meta/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/policy"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// Types of conditions.
const (
	ZtunnelAccepted   = "ZtunnelAccepted"
	WaypointBound     = "istio.io/WaypointBound"
	WaypointAccepted  = "WaypointAccepted"
	WaypointMissing   = "istio.io/WaypointMissing"
	VisibilityApplied = "istio.io/VisibilityApplied"
	EndpointsApplied  = "ambit.io/EndpointsApplied"
	// InForce is ours: False tells which proxies do not have an object yet, or what of it this version does not do.
	InForce = "ambit.io/InForce"

	controller = gatewayv1.GatewayController(mesh.GatewayController)
)

// Status is what is to be said of one object.
type Status struct {
	Ref        source.Ref
	Generation int64
	// Parents of a route, each of which gets the conditions.
	Parents    []gatewayv1.ParentReference
	Conditions []Condition
	// AtParents are conditions at each of the parents, in place of Conditions.
	AtParents [][]Condition
	// Listeners and Address are those of a Gateway of Kubernetes.
	Listeners []Listener
	Address   string
	// Assigned are the addresses of a ServiceEntry that has none of its own.
	Assigned ambient.Assigned
	// Awaited tells that it is too early to say anything: whether proxies have the object is not known yet.
	Awaited bool
}

// Condition is one statement, and why it holds or not.
type Condition struct {
	Type            string
	True            bool
	Reason, Message string
	// Generation that it is about, where that is not the status's.
	Generation int64
}

// Key names a status in a collection.
func (s Status) Key() string { return s.Ref.Kind.Resource() + "/" + s.Ref.Key }

// Same reports whether two say the same.
func Same(a, b Status) bool {
	return a.Key() == b.Key() && a.Awaited == b.Awaited && ambient.SameAssigned(a.Assigned, b.Assigned) && a.Generation == b.Generation && slices.Equal(a.Conditions, b.Conditions) &&
		reflect.DeepEqual(a.Parents, b.Parents) && reflect.DeepEqual(a.AtParents, b.AtParents) && reflect.DeepEqual(a.Listeners, b.Listeners) && a.Address == b.Address
}

// OfPolicy tells whether node proxies enforce a policy. It tells nothing of one that is not for them.
func OfPolicy(o kinds.Object, r policy.Result) (Status, bool) {
	if r.Reason == "" {
		return of(o, Condition{
			Type: WaypointAccepted, Reason: "AncestorNotBound",
			Message: "targetRefs are for waypoints, which this version does not have: the policy is in force nowhere; use a selector to enforce its layer-4 part",
		}), true
	}
	s := of(o, Condition{Type: ZtunnelAccepted, True: r.Wire != nil || r.Reason == policy.Accepted, Reason: r.Reason, Message: r.Why})
	if r.Wire != nil && r.NoEffect() {
		s.Conditions = append(s.Conditions, Condition{
			Type: InForce, Reason: "NoEffect", Message: "a DENY policy that has no rule at layer 4 denies nobody; give it one with from, ports or when",
		})
	}
	return s, true
}

// Warnings are what an author should know of a status: what of the object is not in force as it is written.
func (s Status) Warnings() (all []string) {
	for _, c := range s.Conditions {
		if !c.True || c.Type == WaypointMissing || c.Reason == policy.Unsupported {
			all = append(all, c.Message)
		}
	}
	return all
}

// Tried is the status of a policy that is only tried out.
func (s Status) Tried() Status {
	s.Conditions = slices.Clone(s.Conditions)
	for i, c := range s.Conditions {
		if c.Type == InForce {
			s.Conditions[i].Message = "dry run, so it is only logged: " + c.Message
		}
	}
	return s
}

// OfRouting tells what of an object that routes is not in force, and why. What is wholly in force has no status.
func OfRouting(o kinds.Object, why []string) (Status, bool) {
	if len(why) == 0 {
		return Status{}, false
	}
	s := of(o, Condition{Type: InForce, Reason: "NotSupported", Message: strings.Join(why, "; ")})
	s.Parents, _ = routeOf(o)
	return s, true
}

// OfBinding tells whether an object goes through the waypoint that it asks for.
func OfBinding(o kinds.Object, b ambient.Binding) (Status, bool) {
	if b.Asked == "" {
		return Status{}, false
	}
	return of(o, Condition{Type: WaypointBound, True: b.Waypoint != nil, Reason: b.Reason, Message: b.Why}), true
}

func of(o kinds.Object, c ...Condition) Status {
	return Status{Ref: source.RefOf(o), Generation: o.GetGeneration(), Conditions: c}
}

// With adds whether an object is in force to what is said of it anyway.
func (s Status) With(f Force, known bool) Status {
	if !known {
		s.Awaited = true
		return s
	}
	s.Conditions = append(slices.Clip(s.Conditions), f.Condition)
	return s
}

// OfEntry adds what is to be said of a ServiceEntry alone: its addresses, and what of it node proxies cannot do.
func (s Status) OfEntry(a ambient.Assigned, wider, dynamic bool, sockets []string) Status {
	s.Assigned = a
	if dynamic {
		s.Conditions = append(slices.Clip(s.Conditions), Condition{
			Type: WaypointMissing, True: true, Reason: "WaypointMissing",
			Message: "resolution DYNAMIC_DNS needs a waypoint, which this version does not have: connections to such a host go where its own DNS answer says",
		})
	}
	if wider {
		s.Conditions = append(slices.Clip(s.Conditions), Condition{
			Type: VisibilityApplied, Reason: "UnsupportedValue",
			Message: "a node proxy knows all namespaces or the entry's own: with other namespaces in exportTo all of them see it; write \".\" or \"*\"",
		})
	}
	if len(sockets) > 0 {
		s.Conditions = append(slices.Clip(s.Conditions), Condition{
			Type: EndpointsApplied, Reason: "UnsupportedValue",
			Message: "a node proxy cannot reach these for its pods, so they are left out: " + strings.Join(sockets, ", ") + "; give their addresses on the network",
		})
	}
	return s
}

// Overruled is the status of an entry some of whose hosts are another's.
func (s Status) Overruled(hosts []string) Status {
	s.Conditions = slices.DeleteFunc(slices.Clone(s.Conditions), func(c Condition) bool { return c.Type == InForce })
	s.Conditions = append(s.Conditions, Condition{
		Type: InForce, Reason: "HostConflict",
		Message: "these hosts are defined by another object of the namespace, which wins: " + strings.Join(hosts, ", ") + "; remove one of the two",
	})
	return s
}

// Of is the status of an object of which there is nothing to say.
func Of(o kinds.Object) Status { return of(o) }

// object is the status as an object that has nothing else. since tells when each condition became what it is.
func (s Status) object(since func(Condition) time.Time) (kinds.Object, error) {
	o := s.Ref.Kind.New()
	namespace, name := s.Ref.Names()
	o.SetNamespace(namespace)
	o.SetName(name)
	if st := istioStatus(o); st != nil {
		st.Conditions, st.ObservedGeneration = s.istio(since), s.Generation
		return o, nil
	}
	if _, st := routeOf(o); st != nil {
		*st = s.route(since)
		return o, nil
	}
	switch o := o.(type) {
	case *networkingv1.ServiceEntry:
		o.Status.Conditions, o.Status.ObservedGeneration = s.istio(since), s.Generation
		o.Status.Addresses = s.Assigned.Status()
	case *gatewayv1.Gateway:
		o.Status = s.gateway(since)
	case *corev1.Service:
		o.Status.Conditions = s.kube(since)
	default:
		return nil, fmt.Errorf("a %s has no conditions", s.Ref.Kind.Kind)
	}
	return o, nil
}

func (s Status) istio(since func(Condition) time.Time) []*metav1alpha1.IstioCondition {
	var out []*metav1alpha1.IstioCondition
	for _, c := range s.Conditions {
		out = append(out, &metav1alpha1.IstioCondition{
			Type: c.Type, Status: c.word(), Reason: c.Reason, Message: c.Message,
			ObservedGeneration: cmp.Or(c.Generation, s.Generation), LastTransitionTime: timestamppb.New(since(c)),
		})
	}
	return out
}

func (s Status) kube(since func(Condition) time.Time) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range s.Conditions {
		out = append(out, metav1.Condition{
			Type: c.Type, Status: metav1.ConditionStatus(c.word()), Reason: c.Reason, Message: c.Message,
			ObservedGeneration: cmp.Or(c.Generation, s.Generation), LastTransitionTime: metav1.NewTime(since(c)),
		})
	}
	return out
}

func (c Condition) word() string {
	if c.True {
		return "True"
	}
	return "False"
}
