// Package policy turns AuthorizationPolicy and PeerAuthentication into what a node proxy enforces.
package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	securityv1beta1 "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/mesh"
)

// Result is what became of a policy. Wire is nil when a node proxy enforces nothing of it.
type Result struct {
	Wire   *authorization.Authorization
	Reason string // of the condition ZtunnelAccepted: Accepted, UnsupportedValue, Invalid; "" for no condition
	Why    string
}

// NoEffect reports whether proxies would make nothing of a policy: a DENY without rules denies nobody.
func (r Result) NoEffect() bool {
	return r.Wire == nil || r.Wire.Action == authorization.Action_DENY && len(r.Wire.Rules) == 0
}

// Reasons of the condition ZtunnelAccepted.
const (
	Accepted    = "Accepted"
	Unsupported = "UnsupportedValue"
	Invalid     = "Invalid"
)

// Key is how the wire names a policy, and how a workload refers to it.
func Key(a *authorization.Authorization) string { return a.Namespace + "/" + a.Name }

// FromAuthorizationPolicy converts a policy for layer 4. What layer 4 cannot see makes it stricter, never looser: an
// ALLOW rule with such parts is left out, a DENY rule loses those parts.
func FromAuthorizationPolicy(p *securityv1.AuthorizationPolicy, root string) Result {
	if p.Spec.TargetRef != nil || len(p.Spec.TargetRefs) > 0 {
		return Result{} // for a waypoint
	}
	wire := &authorization.Authorization{Name: p.Name, Namespace: p.Namespace, Scope: scope(p, root)}
	switch p.Spec.Action {
	case securityv1beta1.AuthorizationPolicy_ALLOW:
		wire.Action = authorization.Action_ALLOW
	case securityv1beta1.AuthorizationPolicy_DENY:
		wire.Action = authorization.Action_DENY
	default:
		return Result{Reason: Unsupported, Why: fmt.Sprintf("ztunnel does not support the %s action; attach the policy to a waypoint with targetRefs", p.Spec.Action)}
	}
	if v, ok := p.Annotations[mesh.AnnotationDryRun]; ok {
		dry, err := strconv.ParseBool(v)
		if err != nil {
			// Enforced: a policy that somebody meant to try out is safer in force than ignored.
			return finish(p, wire, fmt.Sprintf("annotation %s is %q, neither true nor false; the policy is enforced", mesh.AnnotationDryRun, v))
		}
		wire.DryRun = dry
	}
	return finish(p, wire, "")
}

// finish converts the rules and says how it went.
func finish(p *securityv1.AuthorizationPolicy, wire *authorization.Authorization, complaint string) Result {
	var http, bad, lost, narrow []string
	for i, r := range p.Spec.Rules {
		c := conversion{deny: wire.Action == authorization.Action_DENY, namespace: p.Namespace, rule: i}
		if rule := c.convert(r); rule != nil {
			wire.Rules = append(wire.Rules, rule)
		} else {
			lost = append(lost, fmt.Sprintf("spec.rules[%d]", i))
		}
		if c.narrow {
			narrow = append(narrow, fmt.Sprintf("spec.rules[%d]", i))
		}
		http = append(http, c.http...)
		bad = append(bad, c.bad...)
	}
	r := Result{Wire: wire, Reason: Accepted, Why: "bound to ztunnel"}
	switch {
	case len(bad) > 0:
		r.Reason, r.Why = Invalid, fmt.Sprintf("these values cannot be read: %s; the policy is stricter than written. Correct them", list(bad))
	case len(http) > 0:
		what := "ALLOW rules with HTTP attributes are left out, so less is allowed than written."
		if wire.Action == authorization.Action_DENY {
			what = "the DENY rules apply without their HTTP attributes, so more is denied than written."
			switch {
			case len(wire.Rules) == 0:
				what = "without them nothing is left of this DENY policy: it has no effect."
			case len(lost) > 0:
				what += " Nothing is left of " + list(lost) + ", which denies nobody."
			}
			if len(narrow) > 0 {
				what += " Alternatives with nothing else are left out of " + list(narrow) + ", which does not deny them."
			}
		}
		r.Reason, r.Why = Unsupported, fmt.Sprintf("ztunnel does not support HTTP attributes (found: %s): %s Use a waypoint to enforce them, "+
			"or write a rule without them", list(http), what)
	case complaint != "":
		r.Reason, r.Why = Invalid, complaint
	}
	return r
}

// mostListed is how many places a message lists.
const mostListed = 8

// list puts places into words, each once.
func list(places []string) string {
	slices.Sort(places)
	places = slices.Compact(places)
	if n := len(places); n > mostListed {
		return strings.Join(places[:mostListed], ", ") + fmt.Sprintf(" and %d more", n-mostListed)
	}
	return strings.Join(places, ", ")
}

// place is where in the policy a field of the part stands that is being converted.
func (c *conversion) place(field string) string {
	return fmt.Sprintf("spec.rules[%d].%s.%s", c.rule, c.at, field)
}

// scope says whom a policy is for. A selector that asks for nothing selects all, as no selector does.
func scope(p *securityv1.AuthorizationPolicy, root string) authorization.Scope {
	switch {
	case len(p.Spec.GetSelector().GetMatchLabels()) > 0:
		return authorization.Scope_WORKLOAD_SELECTOR
	case p.Namespace == root:
		return authorization.Scope_GLOBAL
	}
	return authorization.Scope_NAMESPACE
}

// conversion is one rule on its way.
type conversion struct {
	deny      bool
	namespace string
	rule      int
	at        string   // where in the rule the conversion is
	http      []string // where attributes stand that layer 4 cannot see
	bad       []string // values that cannot be read, and where they stand
	narrow    bool     // a DENY rule that denies less than written: some of its alternatives are lost
}

// part is one clause and what is missing from it.
type part struct {
	clause *authorization.Clause
	open   bool // some of its alternatives lost all they had: as written, it might match anything
	broken bool // some value could not be read
}

func (c *conversion) convert(r *securityv1beta1.Rule) *authorization.Rule {
	var parts []part
	if len(r.GetTo()) > 0 {
		p := part{clause: &authorization.Clause{}}
		for i, to := range r.To {
			c.at = fmt.Sprintf("to[%d].operation", i)
			c.add(&p, func() (*authorization.Match, int) { return c.operation(to.GetOperation()) })
		}
		parts = append(parts, p)
	}
	if len(r.GetFrom()) > 0 {
		p := part{clause: &authorization.Clause{}}
		for i, from := range r.From {
			c.at = fmt.Sprintf("from[%d].source", i)
			c.add(&p, func() (*authorization.Match, int) { return c.source(from.GetSource()) })
		}
		parts = append(parts, p)
	}
	for i, when := range r.GetWhen() {
		c.at = fmt.Sprintf("when[%d]", i)
		p := part{clause: &authorization.Clause{}}
		c.add(&p, func() (*authorization.Match, int) { return c.condition(when) })
		parts = append(parts, p)
	}
	if !c.deny {
		if len(c.http) > 0 || len(c.bad) > 0 {
			return nil
		}
		return assemble(parts)
	}
	var rule *authorization.Rule
	rule, c.narrow = denial(parts)
	return rule
}

// add converts one alternative of a clause.
func (c *conversion) add(p *part, convert func() (m *authorization.Match, written int)) {
	http, bad := len(c.http), len(c.bad)
	m, kept := convert()
	p.broken = p.broken || len(c.bad) > bad
	if kept == 0 && len(c.http) > http {
		p.open = true
		return
	}
	p.clause.Matches = append(p.clause.Matches, m)
}

// denial keeps of a DENY rule what layer 4 can see. A clause that lost an alternative would deny less than written, so
// it is left out whole, unless nothing else remains: then the rule is narrower than written, rather than one that denies
// everybody; a clause with an unreadable value is left out always.
func denial(parts []part) (rule *authorization.Rule, narrow bool) {
	var whole, rest []part
	broken := false
	for _, p := range parts {
		switch {
		case p.broken:
			broken = true
		case !p.open:
			whole = append(whole, p)
		case len(p.clause.Matches) > 0:
			rest = append(rest, p)
		}
	}
	switch {
	case len(whole) > 0 || broken || len(parts) == 0:
		return assemble(whole), false
	case len(rest) > 0:
		return assemble(rest), true
	}
	return nil, false
}

func assemble(parts []part) *authorization.Rule {
	r := &authorization.Rule{}
	for _, p := range parts {
		r.Clauses = append(r.Clauses, p.clause)
	}
	return r
}
