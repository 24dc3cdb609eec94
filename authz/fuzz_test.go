package authz

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/identity"
)

// FuzzPolicy feeds foreign bytes to the compiler: nothing may panic, and what is not understood must not admit.
func FuzzPolicy(f *testing.F) {
	for _, p := range []*authorization.Authorization{of(allow), one(allow, principal("a", "b*")), one(deny, &M{NotSourceIps: []*authorization.Address{block("10.0.0.0/8")}})} {
		b, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &authorization.Authorization{}
		if proto.Unmarshal(b, a) != nil {
			return
		}
		p := Compile(a)
		for _, c := range []Conn{conn(peerA), conn(none), {}} {
			v := Collect([]*Policy{p}).Check(c)
			if p.Problem != "" && !p.DryRun && v.Allow {
				t.Fatalf("%s: not understood (%s) but admitted: %+v", p.Key(), p.Problem, v)
			}
			if v.Allow != (v.Reason == "") || v.Why == "" {
				t.Fatalf("verdict without its reason: %+v", v)
			}
		}
	})
}

// TestAgreesWithNaiveModel compares the evaluator with a model that follows the specification word by word.
func TestAgreesWithNaiveModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	allowed := 0
	const rounds = 100_000
	for range rounds {
		var all []*authorization.Authorization
		for range r.IntN(4) {
			all = append(all, randomPolicy(r))
		}
		c := randomConn(r)
		got, want := check(c, all...).Allow, model(c, all)
		if got != want {
			t.Fatalf("Check(%+v) = %v, the model says %v, for %v", c, got, want, all)
		}
		if got {
			allowed++
		}
	}
	if allowed < rounds/10 || allowed > rounds*9/10 {
		t.Fatalf("%d of %d admitted: the generator does not try both outcomes", allowed, rounds)
	}
}

var names = []string{"ns1", "ns2", "a", "b"}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func randomConn(r *rand.Rand) Conn {
	c := Conn{From: pick(r, []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")}), To: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), pick(r, []uint16{80, 90}))}
	if r.IntN(3) > 0 {
		c.Peer = identity.ID{TrustDomain: "td", Namespace: pick(r, names[:2]), ServiceAccount: pick(r, names[2:])}
	}
	return c
}

func some[T any](r *rand.Rand, f func() T) (out []T) {
	if r.IntN(3) > 0 {
		return nil
	}
	for range 1 + r.IntN(2) {
		out = append(out, f())
	}
	return out
}

func randomPolicy(r *rand.Rand) *authorization.Authorization {
	p := of(authorization.Action(r.IntN(2)))
	ns := func() *authorization.StringMatch { return is(pick(r, []string{"ns1", "ns2", "ns*", "*1", "*"})) }
	who := func() *authorization.StringMatch {
		return is(pick(r, []string{"td/ns/ns1/sa/a", "spiffe://td/ns/ns2/sa/b", "td/ns/ns1/*", "*/sa/b", "*"}))
	}
	sa := func() *authorization.ServiceAccountMatch {
		return &authorization.ServiceAccountMatch{Namespace: pick(r, names[:2]), ServiceAccount: pick(r, names[2:])}
	}
	ip := func() *authorization.Address {
		return block(pick(r, []string{"10.0.0.0/8", "10.0.0.1/32", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8", "::/0"}))
	}
	port := func() uint32 { return pick(r, []uint32{80, 90}) }
	for range r.IntN(3) {
		rule := &authorization.Rule{}
		for range r.IntN(3) {
			cl := &authorization.Clause{}
			for range r.IntN(3) {
				cl.Matches = append(cl.Matches, &M{
					Namespaces: some(r, ns), NotNamespaces: some(r, ns), Principals: some(r, who), NotPrincipals: some(r, who),
					ServiceAccounts: some(r, sa), NotServiceAccounts: some(r, sa), SourceIps: some(r, ip), NotSourceIps: some(r, ip),
					DestinationIps: some(r, ip), NotDestinationIps: some(r, ip), DestinationPorts: some(r, port), NotDestinationPorts: some(r, port),
				})
			}
			rule.Clauses = append(rule.Clauses, cl)
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

func model(c Conn, all []*authorization.Authorization) bool {
	anyAllow, allowed := false, false
	for _, p := range all {
		m := slices.ContainsFunc(p.Rules, func(r *authorization.Rule) bool {
			return !slices.ContainsFunc(r.Clauses, func(cl *authorization.Clause) bool {
				return len(cl.Matches) > 0 && !slices.ContainsFunc(cl.Matches, func(m *M) bool { return modelMatch(c, m) })
			})
		})
		if p.Action == deny && m {
			return false
		}
		if p.Action == allow {
			anyAllow, allowed = true, allowed || m
		}
	}
	return !anyAllow || allowed
}

func modelMatch(c Conn, m *M) bool {
	if proto.Equal(m, &M{}) {
		return false
	}
	text := func(have string, want []*authorization.StringMatch) bool {
		return have != "" && slices.ContainsFunc(want, func(s *authorization.StringMatch) bool {
			switch {
			case s.GetPresence() != nil:
				return true
			case s.GetPrefix() != "":
				return strings.HasPrefix(have, s.GetPrefix())
			case s.GetSuffix() != "":
				return strings.HasSuffix(have, s.GetSuffix())
			}
			return have == strings.TrimPrefix(s.GetExact(), "spiffe://")
		})
	}
	sa := func(want []*authorization.ServiceAccountMatch) bool {
		return slices.ContainsFunc(want, func(s *authorization.ServiceAccountMatch) bool {
			return s.Namespace == c.Peer.Namespace && s.ServiceAccount == c.Peer.ServiceAccount
		})
	}
	ip := func(have netip.Addr, want []*authorization.Address) bool {
		return slices.ContainsFunc(want, func(a *authorization.Address) bool {
			addr, _ := netip.AddrFromSlice(a.Address)
			return netip.PrefixFrom(addr, int(a.Length)).Contains(have)
		})
	}
	port := func(want []uint32) bool { return slices.Contains(want, uint32(c.To.Port())) }
	who := c.Peer.Principal()
	return (len(m.Namespaces) == 0 || text(c.Peer.Namespace, m.Namespaces)) && !text(c.Peer.Namespace, m.NotNamespaces) &&
		(len(m.Principals) == 0 || text(who, m.Principals)) && !text(who, m.NotPrincipals) &&
		(len(m.ServiceAccounts) == 0 || sa(m.ServiceAccounts)) && !sa(m.NotServiceAccounts) &&
		(len(m.SourceIps) == 0 || ip(c.From, m.SourceIps)) && !ip(c.From, m.NotSourceIps) &&
		(len(m.DestinationIps) == 0 || ip(c.To.Addr(), m.DestinationIps)) && !ip(c.To.Addr(), m.NotDestinationIps) &&
		(len(m.DestinationPorts) == 0 || port(m.DestinationPorts)) && !port(m.NotDestinationPorts)
}
