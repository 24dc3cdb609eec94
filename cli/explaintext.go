package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// write tells the steps in the order in which a connection takes them.
func (e *explanation) write(w io.Writer) error { return e.page().write(w, widthOf(w), newPaint(w)) }

func (e *explanation) page() *page {
	o := &e.Outbound
	p := &page{title: fmt.Sprintf("From %s to %s", e.From, e.To)}
	switch {
	case e.Native != "":
		p.say("captured", plain, "no, and it need not be: %s speaks HBONE itself", e.Native)
		p.say("identity", plain, "%s", o.Identity)
	case o.Captured:
		p.say("captured", plain, "yes: the ztunnel of %s serves %s", e.Node, e.From)
		p.say("identity", plain, "%s, certificate %s", o.Identity, certificate(o.Certificate))
	default:
		p.say("captured", wary, "no: %s", e.Reason)
		p.say("identity", wary, "none that it could prove")
	}
	switch {
	case o.Service != "":
		p.say("resolved", plain, "%s is service %s, with %d endpoint(s) for this port", o.Dialled, o.Service, len(o.Endpoints))
	case len(o.Endpoints) > 0:
		p.say("resolved", plain, "%s is workload %s", o.Dialled, o.Endpoints[0].UID)
	default:
		p.say("resolved", wary, "%s is neither a service nor a workload of the mesh", o.Dialled)
	}
	if e.Note != "" {
		p.more(aside, "%s", e.Note)
	}
	for i, x := range o.Endpoints {
		if i == mostEnds {
			p.more(aside, "and %d more", len(o.Endpoints)-mostEnds)
			break
		}
		p.more(plain, "%s at %s on %s", x.Namespace+"/"+x.Name, x.Address, cmp.Or(x.Node, "no node"))
	}
	p.say("travels", plain, "%s", e.travels())
	for _, t := range e.Ends {
		p.say("policy", plain, "at %s", t.Namespace+"/"+t.Name)
		t.policies(p)
	}
	mood, _, result := e.result()
	p.say("result", mood, "%s", result)
	if r := e.remedy(); r != "" {
		p.more(aside, "%s", r)
	}
	return p
}

// certificate is the state of one in words.
func certificate(state string) string {
	word, why, _ := strings.Cut(state, ": ")
	text := strings.ToLower(cmp.Or(word, "not asked for yet"))
	if why != "" {
		text += ": " + why
	}
	return text
}

// travels tells how the bytes cross the network.
func (e *explanation) travels() string {
	o := &e.Outbound
	if !e.proved() && e.Node == "" {
		return "as plain text, from wherever the client is: the mesh sees it at its end"
	}
	if !e.proved() {
		return "as plain text, straight from the pod: the mesh does not touch it"
	}
	switch {
	case o.Kind == "HBONE" && o.Type == "ToServerWaypoint":
		return fmt.Sprintf("by HBONE to the waypoint at %s, which must be %s", o.Hop, strings.Join(o.Expect, " or "))
	case len(o.Endpoints) > 1 && e.plain() > 0 && e.plain() < len(o.Endpoints):
		return fmt.Sprintf("by HBONE (mutual TLS, port 15008) to an endpoint in the mesh, as plain text to the %d that are not", e.plain())
	case o.Kind == "HBONE" && len(o.Endpoints) > 1:
		return "by HBONE (mutual TLS, port 15008) to the endpoint, which must prove its own identity"
	case o.Kind == "HBONE":
		return fmt.Sprintf("by HBONE (mutual TLS) to %s, which must be %s", o.Hop, strings.Join(o.Expect, " or "))
	case o.Kind == "Plaintext":
		return "as plain text: the destination is not in the mesh, so it has no tunnel"
	case o.Kind == "Passthrough":
		return "as plain text to the address that was dialled: " + o.Why
	}
	return "not at all: " + o.Why
}

// policies tells what each policy of an endpoint says, and what comes of them.
func (t *explainedTarget) policies(p *page) {
	in, more := t.Inbound, p.more
	if in == nil {
		more(wary, "not asked: %s", t.Unasked)
		return
	}
	switch {
	case !in.Captured && in.Peer != "":
		more(wary, "its ztunnel does not serve this pod: unless it ends tunnels itself, nobody answers")
	case !in.Captured:
		more(wary, "no ztunnel serves it: nothing enforces policy on its connections")
	}
	if len(in.Policies) == 0 {
		more(plain, "no policy applies")
	}
	for _, x := range in.Policies {
		verb, t := "does not match", aside
		if x.Matched {
			verb, t = "matches", plain
		}
		dry := ""
		if x.DryRun {
			dry = " (dry run)"
		}
		more(t, "%s %s%s %s: %s", x.Action, x.Name, dry, verb, x.Why)
	}
	switch {
	case !in.Captured:
	case in.Allow:
		more(fine, "allowed: %s", in.Why)
	default:
		more(bad, "denied: %s", in.Reason)
	}
}

// result is what becomes of the connection in the end.
func (e *explanation) result() (mood tone, outcome, text string) {
	o := &e.Outbound
	if o.Captured && o.Kind == "Refuse" {
		return bad, "FAILS", "FAILS: " + o.Why
	}
	allowed, denied, unknown := 0, 0, 0
	reasons := []string{}
	for _, t := range e.Ends {
		switch in := t.Inbound; {
		case in == nil, !in.Captured && in.Peer != "":
			unknown++
		case !in.Captured || in.Allow:
			allowed++
		default:
			denied++
			if !slices.Contains(reasons, in.Reason) {
				reasons = append(reasons, in.Reason)
			}
		}
	}
	switch {
	case denied > 0 && allowed+unknown == 0:
		return bad, "DENIED", "DENIED: connection closed due to policy rejection: " + strings.Join(reasons, "; ")
	case denied > 0:
		return bad, "DENIED", fmt.Sprintf("DENIED by %d of %d endpoints: %s", denied, denied+allowed+unknown, strings.Join(reasons, "; "))
	case o.Service != "" && len(o.Endpoints) == 0 && o.Type != "ToServerWaypoint" && o.Kind != "Passthrough":
		return bad, "FAILS", "FAILS: no endpoint takes connections for this port"
	case unknown > 0 && allowed == 0:
		return wary, "UNDECIDED", "NOT DECIDED here: the last word is with an end that no ztunnel could be asked about"
	}
	switch plain := e.plain(); {
	case !e.proved() || len(o.Endpoints) == 0 || plain == len(o.Endpoints):
		return wary, "ALLOWED", "ALLOWED, as plain text"
	case plain > 0:
		return wary, "ALLOWED", fmt.Sprintf("ALLOWED, encrypted and authenticated but for %d of %d endpoints", plain, len(o.Endpoints))
	}
	return fine, "ALLOWED", "ALLOWED, encrypted and authenticated"
}

// remedy says what would let a denied connection in, as far as that can be said.
func (e *explanation) remedy() string {
	for _, t := range e.Ends {
		in := t.Inbound
		if in == nil || !in.Captured || in.Allow {
			continue
		}
		var denying, allowing []string
		for _, p := range in.Policies {
			switch {
			case p.DryRun:
			case p.Action == "DENY" && p.Matched:
				denying = append(denying, p.Name)
			case p.Action == "ALLOW" && !p.Matched:
				allowing = append(allowing, p.Name)
			}
		}
		who, proved := strings.CutPrefix(in.Peer, "spiffe://")
		switch {
		case len(denying) > 0 && !proved:
			return "to let it in, give the client an identity: label its namespace istio.io/dataplane-mode=ambient"
		case len(denying) > 0:
			return "to let it in, change or delete " + strings.Join(denying, " and ")
		case len(allowing) > 0 && proved:
			return fmt.Sprintf("to let it in, add the principal %s to a rule of %s", who, strings.Join(allowing, " or "))
		case len(allowing) > 0:
			return "to let it in, label the client's namespace istio.io/dataplane-mode=ambient and name its principal in " + strings.Join(allowing, " or ")
		}
	}
	return ""
}

// plain counts the endpoints that have no tunnel.
func (e *explanation) plain() int {
	n := 0
	for _, x := range e.Outbound.Endpoints {
		if !x.HBONE {
			n++
		}
	}
	return n
}
