package status

import (
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/control/internal/policy"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Stale is an object that is not understood as it is now.
type Stale struct {
	Ref     source.Ref
	Why     string
	Instead Instead
}

// Instead is what is in force in place of it.
type Instead int

// What may be in force.
const (
	Earlier Instead = iota // what it said before
	Closed                 // what refuses all that it may be about
	Nothing
)

// notUnderstood is the reason of conditions that tell of it.
const notUnderstood = "NotUnderstood"

// Key names the status that it is about.
func (s Stale) Key() string { return Status{Ref: s.Ref}.Key() }

func (s Stale) why() string { return strings.ReplaceAll(s.Why, "\n", "; ") }

// Told adds to whether an object is in force that what is in force is something else.
func (s Stale) Told(c Condition) Condition {
	is := c.Message
	c.True, c.Reason = false, notUnderstood
	c.Message = "what it says now is not understood: " + s.why() + "; what it said before is " + is
	if s.Instead == Closed {
		c.Message = "it is not understood: " + s.why() + "; until it is, it refuses everything that it may be about (" + is + ")"
	}
	return c
}

// Of is the status of an object for which something stands that refuses.
func (s Stale) Of(st Status) Status {
	if s.Instead != Closed {
		return st
	}
	all := make([]Condition, 0, len(st.Conditions))
	for _, c := range st.Conditions {
		if c.Type == ZtunnelAccepted {
			c.True, c.Reason, c.Message = false, policy.Invalid, s.why()
		}
		all = append(all, c)
	}
	st.Conditions = all
	return st
}

// Alone is the status of an object of which nothing is known but that it is not understood; false if its kind cannot tell.
func (s Stale) Alone() (Status, bool) {
	if s.Instead != Nothing || !tells(s.Ref.Kind.New()) {
		return Status{}, false
	}
	return Status{Ref: s.Ref, Conditions: []Condition{{
		Type: InForce, Reason: notUnderstood, Message: "it is not understood, so nothing of it is in force: " + s.why(),
	}}}, true
}

// tells reports whether objects of a kind have conditions of their own. Those of routes are about their parents.
func tells(o kinds.Object) bool {
	switch o.(type) {
	case *networkingv1.ServiceEntry, *gatewayv1.Gateway:
		return true
	}
	return istioStatus(o) != nil
}
