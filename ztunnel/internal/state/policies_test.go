package state

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/authz"
)

func TestPoliciesOfAWorkload(t *testing.T) {
	s := storeOf(t, 0, wl("b", "10.0.0.2", func(w *workload.Workload) { w.AuthorizationPolicies = []string{"ns/mine", "ns/absent"} }))
	p := func(ns, name string, scope authorization.Scope) *authorization.Authorization {
		return &authorization.Authorization{Namespace: ns, Name: name, Scope: scope}
	}
	if err := s.ApplyPolicies(Policies{Set: []*authorization.Authorization{
		p("", "mesh", authorization.Scope_GLOBAL), p("ns", "namespace", authorization.Scope_NAMESPACE), p("other", "namespace", authorization.Scope_NAMESPACE),
		p("ns", "mine", authorization.Scope_WORKLOAD_SELECTOR), p("ns", "others", authorization.Scope_WORKLOAD_SELECTOR),
	}}); err != nil {
		t.Fatal(err)
	}
	ps := s.PoliciesOf(s.Workload(netip.MustParseAddr("10.0.0.2")))
	if got, want := ps.Names(), []string{"ns/absent", "/mesh", "ns/mine", "ns/namespace"}; !slices.Equal(got, want) {
		t.Errorf("policies %v, want %v", got, want)
	}
	if v := ps.Check(authz.Conn{}); v.Allow || !v.Missing {
		t.Errorf("verdict %+v, want a refusal: one policy was not received", v)
	}
	if err := s.ApplyPolicies(Policies{Set: []*authorization.Authorization{{Namespace: "ns", Name: "namespace", Action: 9}}}); err == nil {
		t.Error("a policy that is not understood was taken without an error")
	}
}

func TestPolicyIsForgottenByItsResourcesName(t *testing.T) {
	s := storeOf(t, 0, wl("b", "10.0.0.2"))
	if err := s.ApplyPolicies(Policies{Set: []*authorization.Authorization{{Name: "p", Scope: authorization.Scope_GLOBAL}}, Names: []string{"root/p"}}); err != nil {
		t.Fatal(err)
	}
	b := s.Workload(netip.MustParseAddr("10.0.0.2"))
	if n := s.PoliciesOf(b).Names(); len(n) != 1 {
		t.Errorf("policies %v, want one", n)
	}
	if err := s.ApplyPolicies(Policies{Remove: []string{"root/p"}}); err != nil {
		t.Fatal(err)
	}
	if n := s.PoliciesOf(b).Names(); len(n) != 0 {
		t.Errorf("policies %v, want none", n)
	}
}
