package state

import (
	"net/netip"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/authz"
)

// future adds a field that this program does not know.
func future[T interface {
	*M
	proto.Message
}, M any](t *testing.T, m T) T {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, 900, protowire.BytesType), []byte("only on Sundays"))
	out := T(new(M))
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func equalTo(principal string) []*authorization.StringMatch {
	return []*authorization.StringMatch{{MatchType: &authorization.StringMatch_Exact{Exact: principal}}}
}

func rulesOf(ms ...*authorization.Match) []*authorization.Rule {
	return []*authorization.Rule{{Clauses: []*authorization.Clause{{Matches: ms}}}}
}

// The golden set: the same policies as an older, an equal and a newer control plane may send them. What all say alike
// has the same verdict everywhere; what only a newer one can say denies, is refused by name, and takes nothing along.
func TestPoliciesOfOtherVersions(t *testing.T) { // XD-15
	fromA := func() *authorization.Match {
		return &authorization.Match{Principals: equalTo("td/ns/ns/sa/a")}
	}
	allowA := func() *authorization.Authorization {
		return &authorization.Authorization{Namespace: "ns", Name: "p", Scope: authorization.Scope_WORKLOAD_SELECTOR, Rules: rulesOf(fromA())}
	}
	denyA := func() *authorization.Authorization {
		p := allowA()
		p.Action = authorization.Action_DENY
		return p
	}
	with := func(p *authorization.Authorization, f func(*authorization.Authorization)) *authorization.Authorization {
		f(p)
		return p
	}
	for _, tc := range []struct {
		name     string
		policy   *authorization.Authorization
		a, b     bool // whether a and b are admitted
		rejected bool
	}{
		{name: "ALLOW, as all versions say it", policy: allowA(), a: true},
		{name: "DENY, as all versions say it", policy: denyA(), b: true},
		{name: "an ALLOW without rules, as N-1 may send for what it cannot say", policy: with(allowA(), func(p *authorization.Authorization) { p.Rules = nil })},
		{name: "a DENY without rules, the same", policy: with(denyA(), func(p *authorization.Authorization) { p.Rules = nil }), a: true, b: true},
		{name: "a dry run", policy: with(denyA(), func(p *authorization.Authorization) { p.DryRun = true }), a: true, b: true},
		{name: "an ALLOW with a new field", policy: future(t, allowA()), rejected: true},
		{name: "a DENY with a new field", policy: future(t, denyA()), rejected: true},
		{name: "a new field in a match", policy: with(allowA(), func(p *authorization.Authorization) { p.Rules = rulesOf(future(t, fromA())) }), rejected: true},
		{name: "a new field in a match of a DENY", policy: with(denyA(), func(p *authorization.Authorization) { p.Rules = rulesOf(future(t, fromA())) }), rejected: true},
		{name: "a new field in a clause", policy: with(allowA(), func(p *authorization.Authorization) {
			p.Rules = []*authorization.Rule{{Clauses: []*authorization.Clause{future(t, &authorization.Clause{Matches: []*authorization.Match{fromA()}})}}}
		}), rejected: true},
		{name: "a new field in a rule", policy: with(allowA(), func(p *authorization.Authorization) { p.Rules = []*authorization.Rule{future(t, p.Rules[0])} }), rejected: true},
		{name: "a new way to match a string", policy: with(denyA(), func(p *authorization.Authorization) {
			p.Rules = rulesOf(&authorization.Match{Principals: []*authorization.StringMatch{future(t, &authorization.StringMatch{})}})
		}), rejected: true},
		{name: "a new action", policy: with(allowA(), func(p *authorization.Authorization) { p.Action = 7 }), rejected: true},
		{name: "a new scope", policy: with(allowA(), func(p *authorization.Authorization) { p.Scope = 7 }), rejected: true},
		{name: "an extension", policy: with(allowA(), func(p *authorization.Authorization) { p.Extensions = []*workload.Extension{{Name: "x"}} }), rejected: true},
		{name: "an extension of a match", policy: with(denyA(), func(p *authorization.Authorization) {
			p.Rules[0].Clauses[0].Matches[0].Extensions = []*workload.Extension{{Name: "x"}}
		}), rejected: true},
	} {
		t.Run("XD-15 "+tc.name, func(t *testing.T) {
			s := storeOf(t, 0, wl("guarded", "10.0.0.2", func(w *workload.Workload) { w.AuthorizationPolicies = []string{"ns/p"} }), wl("open", "10.0.0.3"))
			good := &authorization.Authorization{Namespace: "other", Name: "good", Scope: authorization.Scope_NAMESPACE}
			err := s.ApplyPolicies(Policies{Set: []*authorization.Authorization{tc.policy, good}, Names: []string{"ns/p", "other/good"}})
			bad, ok := err.(*Rejected)
			if ok != tc.rejected || ok && !slices.Equal(bad.Names, []string{"ns/p"}) {
				t.Errorf("rejected %v, want %v of ns/p alone", err, tc.rejected)
			}
			judge := func(who, at string) bool {
				ps := s.PoliciesOf(s.Workload(netip.MustParseAddr(at)))
				return ps.Check(authz.Conn{Peer: account(who), From: netip.MustParseAddr("10.0.0.9"), To: netip.MustParseAddrPort(at + ":80")}).Allow
			}
			if a, b := judge("a", "10.0.0.2"), judge("b", "10.0.0.2"); a != tc.a || b != tc.b {
				t.Errorf("a admitted %v and b %v, want %v and %v", a, b, tc.a, tc.b)
			}
			if got := judge("a", "10.0.0.3"); !got && tc.policy.GetScope() == authorization.Scope_WORKLOAD_SELECTOR {
				t.Error("a workload that the policy does not select is closed")
			}
			if n := len(s.Snapshot().Policies); n != 2 {
				t.Errorf("%d policies are kept, want both", n)
			}
			// Once the control plane says it in words that we know, it is in force.
			if err := s.ApplyPolicies(Policies{Set: []*authorization.Authorization{allowA()}, Names: []string{"ns/p"}}); err != nil || !judge("a", "10.0.0.2") || judge("b", "10.0.0.2") {
				t.Errorf("after its correction: %v", err)
			}
		})
	}
}

// New fields of workloads and services are ignored, as protobuf means them to be: the control plane is upgraded first.
func TestNewFieldsOfWorkloadsChangeNothing(t *testing.T) { // XD-15
	s := storeOf(t, 0)
	old := []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.2", serves(9080, "web"))}
	from, to := s.Workload(netip.MustParseAddr("10.0.0.1")), netip.MustParseAddrPort("10.96.0.1:80")
	var want Route
	for i, set := range [][]*workload.Address{old, {
		{Type: &workload.Address_Service{Service: future(t, old[0].GetService())}}, {Type: &workload.Address_Workload{Workload: future(t, old[1].GetWorkload())}},
	}} {
		if err := s.ApplyAddresses(Addresses{Set: set}); err != nil {
			t.Fatal(err)
		}
		got := s.Route(from, to)
		if i == 0 {
			want = got
		}
		if got.Kind != HBONE || got.Hop.Addr != want.Hop.Addr || got.To != want.To || got.Why() != want.Why() {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}
