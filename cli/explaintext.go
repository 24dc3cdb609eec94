package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/api/explain"
)

// text tells the steps in the order in which a connection takes them.
func (e *explanation) text() string {
	var b strings.Builder
	o := &e.Outbound
	step := 0
	say := func(what, format string, args ...any) {
		step++
		fmt.Fprintf(&b, "%d. %-12s %s\n", step, what, fmt.Sprintf(format, args...))
	}
	more := func(format string, args ...any) { fmt.Fprintf(&b, "   %-12s %s\n", "", fmt.Sprintf(format, args...)) }

	fmt.Fprintf(&b, "From %s to %s\n", e.From, e.To)
	if o.Captured {
		say("captured", "yes: the ztunnel of %s serves %s", e.Node, e.From)
		say("identity", "%s, certificate %s", o.Identity, strings.ToLower(cmp.Or(o.Certificate, "not asked for yet")))
	} else {
		say("captured", "no: %s", e.Reason)
		say("identity", "none that it could prove")
	}
	switch {
	case o.Service != "":
		say("resolved", "%s is service %s, with %d endpoint(s) for this port", o.Dialled, o.Service, len(o.Endpoints))
	case len(o.Endpoints) > 0:
		say("resolved", "%s is workload %s", o.Dialled, o.Endpoints[0].UID)
	default:
		say("resolved", "%s is neither a service nor a workload of the mesh", o.Dialled)
	}
	for i, x := range o.Endpoints {
		if i == mostEnds {
			more("and %d more", len(o.Endpoints)-mostEnds)
			break
		}
		more("%s at %s on %s", x.Namespace+"/"+x.Name, x.Address, cmp.Or(x.Node, "no node"))
	}
	say("travels", "%s", e.travels())
	for _, t := range e.Ends {
		say("policy", "at %s", t.Namespace+"/"+t.Name)
		t.policies(more)
	}
	say("result", "%s", e.result())
	return b.String()
}

// travels tells how the bytes cross the network.
func (e *explanation) travels() string {
	o := &e.Outbound
	if !o.Captured {
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
func (t *explainedTarget) policies(more func(string, ...any)) {
	in := t.Inbound
	if in == nil {
		more("not asked: %s", t.Unasked)
		return
	}
	switch {
	case !in.Captured && in.Peer != "":
		more("its ztunnel does not serve this pod: unless it ends tunnels itself, nobody answers")
	case !in.Captured:
		more("no ztunnel serves this pod: nothing enforces policy on its connections")
	}
	if len(in.Policies) == 0 {
		more("no policy applies")
	}
	for _, p := range in.Policies {
		verb := "does not match"
		if p.Matched {
			verb = "matches"
		}
		dry := ""
		if p.DryRun {
			dry = " (dry run)"
		}
		more("%s %s%s %s: %s", p.Action, p.Name, dry, verb, p.Why)
	}
	switch {
	case !in.Captured:
	case in.Allow:
		more("allowed: %s", in.Why)
	default:
		more("denied: %s", in.Reason)
	}
}

// result is what becomes of the connection in the end.
func (e *explanation) result() string {
	o := &e.Outbound
	if o.Captured && o.Kind == "Refuse" {
		return "FAILS: " + o.Why
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
		return "DENIED: connection closed due to policy rejection: " + strings.Join(reasons, "; ")
	case denied > 0:
		return fmt.Sprintf("DENIED by %d of %d endpoints: %s", denied, denied+allowed+unknown, strings.Join(reasons, "; "))
	case o.Service != "" && len(o.Endpoints) == 0 && o.Type != "ToServerWaypoint" && o.Kind != "Passthrough":
		return "FAILS: no endpoint takes connections for this port"
	case unknown > 0 && allowed == 0:
		return "NOT DECIDED here: the last word is with an end that no ztunnel could be asked about"
	}
	switch plain := e.plain(); {
	case !o.Captured || len(o.Endpoints) == 0 || plain == len(o.Endpoints):
		return "ALLOWED, as plain text"
	case plain > 0:
		return fmt.Sprintf("ALLOWED, encrypted and authenticated but for %d of %d endpoints", plain, len(o.Endpoints))
	}
	return "ALLOWED, encrypted and authenticated"
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

// explainLast tells of the connections that failed lately, on all nodes.
func (l *look) explainLast(ctx context.Context, n int, output string) error {
	if n < 1 {
		return errors.New("--last: want a number above 0")
	}
	pods, err := l.ztunnels(ctx, "", "")
	if err != nil {
		return err
	}
	var all []explain.Failure
	for _, p := range pods {
		b, err := l.mesh().Pod(ctx, http.MethodGet, p.Namespace, p.Name, l.adminPort, "/last?"+url.Values{"n": {strconv.Itoa(n)}}.Encode())
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		var some []explain.Failure
		if err := json.Unmarshal(b, &some); err != nil {
			return fmt.Errorf("answer of %s: %w", p.Name, err)
		}
		all = append(all, some...)
	}
	slices.SortStableFunc(all, func(a, b explain.Failure) int { return a.Time.Compare(b.Time) })
	all = all[max(0, len(all)-n):]
	if output != "" {
		return encode(l.env.Out, output, all)
	}
	if len(all) == 0 {
		fmt.Fprintln(l.env.Out, "No connection has failed since the ztunnels started.")
	}
	for _, f := range all {
		fmt.Fprint(l.env.Out, failureText(f))
	}
	return nil
}

// failureText is a line, and one more for a policy's reason.
func failureText(f explain.Failure) string {
	end := func(name, addr, service string) string {
		switch {
		case name != "" && service != "":
			return fmt.Sprintf("%s (%s, %s)", name, addr, service)
		case name != "":
			return fmt.Sprintf("%s (%s)", name, addr)
		}
		return addr
	}
	text := fmt.Sprintf("%s  %s  %s -> %s  %s\n", f.Time.UTC().Format(time.RFC3339), f.Direction,
		end(f.Source, f.SourceAddr, ""), end(f.Dest, f.DestAddr, f.Service), f.Error)
	if f.Policy != "" || f.Why != "" {
		text += fmt.Sprintf("    policy %s: %s\n", cmp.Or(f.Policy, "none"), f.Why)
	}
	return text
}
