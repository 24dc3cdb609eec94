package authz

import (
	"fmt"
	"strings"
)

// Policies are all the policies that apply to one workload. The zero value has none, which admits everything.
type Policies struct {
	deny, allow []*Policy
	dryRun      []*Policy
	broken      []*Policy
	missing     []string
}

// Collect groups the policies of a workload. missing names those that should apply but were not received.
func Collect(policies []*Policy, missing ...string) *Policies {
	ps := &Policies{missing: missing}
	for _, p := range policies {
		switch {
		case p.DryRun:
			ps.dryRun = append(ps.dryRun, p)
		case p.Problem != "":
			ps.broken = append(ps.broken, p)
		case p.Action == Allow:
			ps.allow = append(ps.allow, p)
		default:
			ps.deny = append(ps.deny, p)
		}
	}
	return ps
}

// Verdict is a decision and its reason.
type Verdict struct {
	Allow bool
	// Policy names the policies that decided, separated by commas; empty when none did.
	Policy string
	// Reason is the short text that Istio's users search their logs for; empty when allowed.
	Reason string
	// Why says which rule matched, or what of the connection did not.
	Why string
	// Missing says that a policy which applies has not arrived: the verdict may change without anybody's doing.
	Missing bool
	// DryRun holds what the dry-run policies would have done.
	DryRun []DryRun
}

// DryRun is what one dry-run policy, or all dry-run ALLOW policies together, would have done.
type DryRun struct {
	Policy string
	Allow  bool
	Why    string
}

// Check decides: a policy that is missing or not understood denies, then any DENY that matches denies, then no ALLOW
// policy at all allows, then any ALLOW that matches allows, and anything else is denied.
func (ps *Policies) Check(c Conn) Verdict {
	c = c.canonical()
	v := ps.decide(c)
	v.DryRun = ps.dryRuns(c)
	return v
}

func (ps *Policies) decide(c Conn) Verdict {
	if len(ps.missing) > 0 {
		return Verdict{
			Policy: ps.missing[0], Missing: true, Reason: "policy not received: " + ps.missing[0],
			Why: fmt.Sprintf("policy %s is named for this workload but was not received", ps.missing[0]),
		}
	}
	if len(ps.broken) > 0 {
		p := ps.broken[0]
		return Verdict{
			Policy: p.Key(), Reason: "policy not understood: " + p.Key(),
			Why: fmt.Sprintf("policy %s is not understood, so it denies: %s", p.Key(), p.Problem),
		}
	}
	for _, p := range ps.deny {
		if ok, why := p.matches(c); ok {
			return Verdict{Policy: p.Key(), Reason: "explicitly denied by: " + p.Key(), Why: "DENY policy " + p.Key() + " matches: " + why}
		}
	}
	if len(ps.allow) == 0 {
		return Verdict{Allow: true, Why: "no ALLOW policy applies"}
	}
	var misses []string
	for _, p := range ps.allow {
		ok, why := p.matches(c)
		if ok {
			return Verdict{Allow: true, Policy: p.Key(), Why: "ALLOW policy " + p.Key() + " matches: " + why}
		}
		misses = append(misses, "ALLOW policy "+p.Key()+" does not match: "+why)
	}
	return Verdict{Policy: keys(ps.allow), Reason: "allow policies exist, but none allowed", Why: few(misses)}
}

// dryRuns evaluates the dry-run policies as if they stood alone.
func (ps *Policies) dryRuns(c Conn) []DryRun {
	var out []DryRun
	var unmatched []*Policy
	allowed := false
	for _, p := range ps.dryRun {
		if p.Problem != "" {
			out = append(out, DryRun{Policy: p.Key(), Why: "not understood: " + p.Problem})
			continue
		}
		ok, why := p.matches(c)
		switch {
		case ok:
			allowed = allowed || p.Action == Allow
			out = append(out, DryRun{Policy: p.Key(), Allow: p.Action == Allow, Why: why})
		case p.Action == Allow:
			unmatched = append(unmatched, p)
		}
	}
	if len(unmatched) > 0 && !allowed {
		out = append(out, DryRun{Policy: keys(unmatched), Why: "no allow policies match"})
	}
	return out
}

// Finding is what one policy says of a connection, for people who ask why.
type Finding struct {
	Policy  string
	Action  Action
	DryRun  bool
	Matched bool
	Why     string
}

// Explain tells for every policy, in the order of evaluation, whether it matches and why.
func (ps *Policies) Explain(c Conn) []Finding {
	c = c.canonical()
	var out []Finding
	for _, name := range ps.missing {
		out = append(out, Finding{Policy: name, Matched: true, Why: "named for this workload but not received"})
	}
	for _, group := range [][]*Policy{ps.broken, ps.deny, ps.allow, ps.dryRun} {
		for _, p := range group {
			f := Finding{Policy: p.Key(), Action: p.Action, DryRun: p.DryRun}
			if p.Problem != "" {
				f.Action, f.Matched, f.Why = Deny, true, "not understood: "+p.Problem
			} else {
				f.Matched, f.Why = p.matches(c)
			}
			out = append(out, f)
		}
	}
	return out
}

// Names lists the policies that apply.
func (ps *Policies) Names() []string {
	names := append([]string{}, ps.missing...)
	for _, group := range [][]*Policy{ps.broken, ps.deny, ps.allow, ps.dryRun} {
		for _, p := range group {
			names = append(names, p.Key())
		}
	}
	return names
}

func keys(ps []*Policy) string {
	names := make([]string, len(ps))
	for i, p := range ps {
		names[i] = p.Key()
	}
	return few(names)
}

// few joins at most eight texts.
func few(texts []string) string {
	const most = 8
	if n := len(texts); n > most {
		return strings.Join(texts[:most], ",") + fmt.Sprintf(",and %d more", n-most)
	}
	return strings.Join(texts, ",")
}
