package authz

import (
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/identity"
)

const (
	allow = authorization.Action_ALLOW
	deny  = authorization.Action_DENY
)

var (
	peerA = identity.ID{TrustDomain: "cluster.local", Namespace: "ns1", ServiceAccount: "a"}
	peerB = identity.ID{TrustDomain: "cluster.local", Namespace: "ns1", ServiceAccount: "b"}
	none  = identity.ID{}
)

func conn(peer identity.ID) Conn {
	return Conn{Peer: peer, From: netip.MustParseAddr("10.0.0.1"), To: netip.MustParseAddrPort("10.0.0.2:9080")}
}

func is(s string) *authorization.StringMatch {
	switch {
	case s == "*":
		return &authorization.StringMatch{MatchType: &authorization.StringMatch_Presence{Presence: &emptypb.Empty{}}}
	case strings.HasPrefix(s, "*"):
		return &authorization.StringMatch{MatchType: &authorization.StringMatch_Suffix{Suffix: s[1:]}}
	case strings.HasSuffix(s, "*"):
		return &authorization.StringMatch{MatchType: &authorization.StringMatch_Prefix{Prefix: s[:len(s)-1]}}
	}
	return &authorization.StringMatch{MatchType: &authorization.StringMatch_Exact{Exact: s}}
}

func textsOf(values ...string) (out []*authorization.StringMatch) {
	for _, v := range values {
		out = append(out, is(v))
	}
	return out
}

func block(s string) *authorization.Address {
	p := netip.MustParsePrefix(s)
	return &authorization.Address{Address: p.Addr().AsSlice(), Length: uint32(p.Bits())}
}

func rawBlock(addr string, bits uint32) *authorization.Address {
	return &authorization.Address{Address: netip.MustParseAddr(addr).AsSlice(), Length: bits}
}

// one is a policy of one rule with one clause that holds these matches.
func one(action authorization.Action, matches ...*authorization.Match) *authorization.Authorization {
	return of(action, clauses(matches))
}

func clauses(cs ...[]*authorization.Match) *authorization.Rule {
	r := &authorization.Rule{}
	for _, c := range cs {
		r.Clauses = append(r.Clauses, &authorization.Clause{Matches: c})
	}
	return r
}

func of(action authorization.Action, rules ...*authorization.Rule) *authorization.Authorization {
	return &authorization.Authorization{Name: "p", Namespace: "ns1", Action: action, Rules: rules}
}

type M = authorization.Match

func principal(p ...string) *M { return &M{Principals: textsOf(p...)} }

func check(c Conn, policies ...*authorization.Authorization) Verdict {
	var ps []*Policy
	for _, p := range policies {
		ps = append(ps, Compile(p))
	}
	return Collect(ps).Check(c)
}

func TestTruthTable(t *testing.T) {
	const idA = "cluster.local/ns/ns1/sa/a"
	strict := one(deny, &M{NotPrincipals: textsOf("*")})
	tests := []struct {
		name     string
		conn     Conn
		policies []*authorization.Authorization
		want     bool
		reason   string
	}{
		{name: "no policy admits", conn: conn(none), want: true},

		{name: "L4-01 ALLOW principal a admits a", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, principal(idA))}, want: true},
		{name: "L4-01 ALLOW principal a refuses b", conn: conn(peerB), policies: []*authorization.Authorization{one(allow, principal(idA))}, reason: "allow policies exist, but none allowed"},
		{name: "L4-01 ALLOW principal a refuses nobody", conn: conn(none), policies: []*authorization.Authorization{one(allow, principal(idA))}, reason: "allow policies exist, but none allowed"},
		{name: "a principal may be written with its scheme", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, principal("spiffe://"+idA))}, want: true},

		{name: "L4-02 DENY wins over ALLOW", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, principal(idA)), one(deny, principal(idA))}, reason: "explicitly denied by: ns1/p"},
		{name: "L4-02 a DENY that does not match leaves it to ALLOW", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, principal(idA)), one(deny, principal("x"))}, want: true},
		{name: "L4-02 a DENY alone admits the rest", conn: conn(peerB), policies: []*authorization.Authorization{one(deny, principal(idA))}, want: true},

		{name: "L4-03 ALLOW without rules refuses all", conn: conn(peerA), policies: []*authorization.Authorization{of(allow)}, reason: "allow policies exist, but none allowed"},
		{name: "L4-03 DENY without rules refuses none", conn: conn(peerA), policies: []*authorization.Authorization{of(deny)}, want: true},
		{name: "L4-03 ALLOW with one empty rule admits all", conn: conn(none), policies: []*authorization.Authorization{of(allow, &authorization.Rule{})}, want: true},
		{name: "L4-03 DENY with one empty rule refuses all", conn: conn(peerA), policies: []*authorization.Authorization{of(deny, &authorization.Rule{})}, reason: "explicitly denied by: ns1/p"},
		{name: "L4-03 a clause without matches matches", conn: conn(none), policies: []*authorization.Authorization{of(allow, clauses(nil))}, want: true},
		{name: "L4-03 an empty match never matches: ALLOW", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, &M{})}, reason: "allow policies exist, but none allowed"},
		{name: "L4-03 an empty match never matches: DENY", conn: conn(peerA), policies: []*authorization.Authorization{one(deny, &M{})}, want: true},
		{name: "L4-03 an empty match beside one that matches", conn: conn(peerA), policies: []*authorization.Authorization{one(deny, &M{}, principal(idA))}, reason: "explicitly denied by: ns1/p"},

		{name: "L4-04 STRICT refuses nobody", conn: conn(none), policies: []*authorization.Authorization{strict}, reason: "explicitly denied by: ns1/p"},
		{name: "L4-04 STRICT admits a proven peer", conn: conn(peerA), policies: []*authorization.Authorization{strict}, want: true},
		{
			name: "L4-04 STRICT with a permissive port admits nobody there", conn: conn(none),
			policies: []*authorization.Authorization{of(deny, clauses([]*M{{NotPrincipals: textsOf("*")}}, []*M{{NotDestinationPorts: []uint32{9080}}}))}, want: true,
		},
		{
			name: "L4-04 STRICT with another permissive port refuses here", conn: conn(none),
			policies: []*authorization.Authorization{of(deny, clauses([]*M{{NotPrincipals: textsOf("*")}}, []*M{{NotDestinationPorts: []uint32{9090, 9091}}}))}, reason: "explicitly denied by: ns1/p",
		},
		{
			name: "L4-04 two strict ports stay strict", conn: conn(none),
			policies: []*authorization.Authorization{one(deny, &M{NotPrincipals: textsOf("*"), DestinationPorts: []uint32{9090}}, &M{NotPrincipals: textsOf("*"), DestinationPorts: []uint32{9080}})}, reason: "explicitly denied by: ns1/p",
		},

		{name: "L4-05 what is left of an L7 ALLOW refuses all", conn: conn(peerA), policies: []*authorization.Authorization{of(allow)}, reason: "allow policies exist, but none allowed"},
		{
			name: "L4-05 an extension nobody knows refuses all, ALLOW", conn: conn(peerA),
			policies: []*authorization.Authorization{one(allow, principal(idA), &M{Extensions: []*workload.Extension{{Name: "x"}}})}, reason: "policy not understood: ns1/p",
		},
		{
			name: "L4-05 an extension nobody knows refuses all, DENY", conn: conn(peerA),
			policies: []*authorization.Authorization{{Name: "p", Namespace: "ns1", Action: deny, Extensions: []*workload.Extension{{Name: "x"}}}}, reason: "policy not understood: ns1/p",
		},
		{name: "an unknown action refuses all", conn: conn(peerA), policies: []*authorization.Authorization{one(7, principal("x"))}, reason: "policy not understood: ns1/p"},
		{name: "a string match of no kind refuses all", conn: conn(peerA), policies: []*authorization.Authorization{one(deny, &M{Principals: []*authorization.StringMatch{{}}})}, reason: "policy not understood: ns1/p"},
		{name: "an IP address of three bytes refuses all", conn: conn(peerA), policies: []*authorization.Authorization{one(deny, &M{SourceIps: []*authorization.Address{{Address: []byte{1, 2, 3}, Length: 8}}})}, reason: "policy not understood: ns1/p"},
		{name: "a port above 65535 refuses all", conn: conn(peerA), policies: []*authorization.Authorization{one(deny, &M{DestinationPorts: []uint32{65536 + 9080}})}, reason: "policy not understood: ns1/p"},

		{name: "L4-10 /0 covers every IPv4 source", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{SourceIps: []*authorization.Address{rawBlock("0.0.0.0", 0)}})}, want: true},
		{name: "L4-10 /0 of IPv6 covers no IPv4 source", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{SourceIps: []*authorization.Address{rawBlock("::", 0)}})}, reason: "allow policies exist, but none allowed"},
		{name: "L4-10 /32 of the source", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{SourceIps: []*authorization.Address{rawBlock("10.0.0.1", 32)}})}, want: true},
		{name: "L4-10 /32 of its neighbour", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{SourceIps: []*authorization.Address{rawBlock("10.0.0.3", 32)}})}, reason: "allow policies exist, but none allowed"},
		{name: "L4-10 host bits do not matter", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{SourceIps: []*authorization.Address{rawBlock("10.0.0.99", 24)}})}, want: true},
		{name: "L4-10 an IPv4-mapped block equals the IPv4 block", conn: conn(none), policies: []*authorization.Authorization{one(deny, &M{SourceIps: []*authorization.Address{rawBlock("::ffff:10.0.0.0", 120)}})}, reason: "explicitly denied by: ns1/p"},
		{
			name:     "L4-10 an IPv4-mapped source equals the IPv4 source",
			conn:     Conn{From: netip.MustParseAddr("::ffff:10.0.0.1"), To: netip.MustParseAddrPort("[::ffff:10.0.0.2]:9080")},
			policies: []*authorization.Authorization{one(deny, &M{SourceIps: []*authorization.Address{rawBlock("10.0.0.1", 32)}, DestinationIps: []*authorization.Address{block("10.0.0.2/32")}})}, reason: "explicitly denied by: ns1/p",
		},
		{name: "L4-10 an excluded source", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{NotSourceIps: []*authorization.Address{block("10.0.0.0/8")}})}, reason: "allow policies exist, but none allowed"},
		{name: "L4-10 a source that is not excluded", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{NotSourceIps: []*authorization.Address{block("11.0.0.0/8")}})}, want: true},
		{name: "L4-10 an unknown source matches no block", conn: Conn{To: conn(none).To}, policies: []*authorization.Authorization{one(allow, &M{SourceIps: []*authorization.Address{rawBlock("0.0.0.0", 0), rawBlock("::", 0)}})}, reason: "allow policies exist, but none allowed"},

		{name: "L4-13 the application's port matches", conn: conn(none), policies: []*authorization.Authorization{one(deny, &M{DestinationPorts: []uint32{9080}})}, reason: "explicitly denied by: ns1/p"},
		{name: "L4-13 the tunnel's port does not", conn: conn(none), policies: []*authorization.Authorization{one(deny, &M{DestinationPorts: []uint32{15008}})}, want: true},

		{name: "namespace", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, &M{Namespaces: textsOf("ns1")})}, want: true},
		{name: "namespace by prefix", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, &M{Namespaces: textsOf("ns*")})}, want: true},
		{name: "namespace by suffix", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, &M{Namespaces: textsOf("*s1")})}, want: true},
		{name: "an empty prefix does not match nobody", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{Namespaces: []*authorization.StringMatch{{MatchType: &authorization.StringMatch_Prefix{}}}})}, reason: "allow policies exist, but none allowed"},
		{name: "an exact empty namespace does not match nobody", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{Namespaces: textsOf("")})}, reason: "allow policies exist, but none allowed"},
		{name: "not-namespace passes for nobody", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{NotNamespaces: textsOf("ns1")})}, want: true},
		{name: "service account", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, &M{ServiceAccounts: []*authorization.ServiceAccountMatch{{Namespace: "ns1", ServiceAccount: "a"}}})}, want: true},
		{name: "service account of another namespace", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, &M{ServiceAccounts: []*authorization.ServiceAccountMatch{{Namespace: "ns2", ServiceAccount: "a"}}})}, reason: "allow policies exist, but none allowed"},
		{name: "an empty service account does not match nobody", conn: conn(none), policies: []*authorization.Authorization{one(allow, &M{ServiceAccounts: []*authorization.ServiceAccountMatch{{}}})}, reason: "allow policies exist, but none allowed"},
		{name: "an excluded service account", conn: conn(peerA), policies: []*authorization.Authorization{one(deny, &M{NotServiceAccounts: []*authorization.ServiceAccountMatch{{Namespace: "ns1", ServiceAccount: "a"}}})}, want: true},
		{name: "fields must all agree", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, &M{Principals: textsOf(idA), DestinationPorts: []uint32{1}})}, reason: "allow policies exist, but none allowed"},
		{name: "clauses must all match", conn: conn(peerA), policies: []*authorization.Authorization{of(allow, clauses([]*M{principal(idA)}, []*M{{DestinationPorts: []uint32{1}}}))}, reason: "allow policies exist, but none allowed"},
		{name: "any rule is enough", conn: conn(peerA), policies: []*authorization.Authorization{of(allow, clauses([]*M{principal("x")}), clauses([]*M{principal(idA)}))}, want: true},
		{name: "presence of a principal", conn: conn(peerB), policies: []*authorization.Authorization{one(allow, principal("*"))}, want: true},
		{name: "principals compare their case", conn: conn(peerA), policies: []*authorization.Authorization{one(allow, principal(strings.ToUpper(idA)))}, reason: "allow policies exist, but none allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := check(tt.conn, tt.policies...)
			if v.Allow != tt.want || v.Reason != tt.reason {
				t.Errorf("Check() = %+v; want allow=%v reason=%q", v, tt.want, tt.reason)
			}
			if v.Why == "" {
				t.Errorf("Check() = %+v without a why", v)
			}
		})
	}
}

func TestPolicyThatWasNotReceivedDenies(t *testing.T) {
	v := Collect([]*Policy{Compile(of(allow, &authorization.Rule{}))}, "ns1/absent").Check(conn(peerA))
	want := Verdict{Policy: "ns1/absent", Missing: true, Reason: "policy not received: ns1/absent", Why: "policy ns1/absent is named for this workload but was not received"}
	if v.Allow || v.Policy != want.Policy || v.Reason != want.Reason || v.Why != want.Why || !v.Missing {
		t.Errorf("Check() = %+v, want %+v", v, want)
	}
}

func TestUnknownFieldDenies(t *testing.T) {
	p := one(deny, principal("x"))
	m := p.Rules[0].Clauses[0].Matches[0]
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	if v := check(conn(peerA), p); v.Allow || v.Reason != "policy not understood: ns1/p" {
		t.Errorf("Check() = %+v, want a refusal: a match with an unknown field is not understood", v)
	}
}

func TestDryRunNeitherOpensNorCloses(t *testing.T) { // L4-15
	denyAll := of(deny, &authorization.Rule{})
	denyAll.DryRun, denyAll.Name = true, "would-deny"
	allowB := one(allow, principal("cluster.local/ns/ns1/sa/b"))
	allowB.DryRun, allowB.Name = true, "would-allow"
	v := check(conn(peerA), denyAll, allowB)
	if !v.Allow || len(v.DryRun) != 2 {
		t.Fatalf("Check() = %+v, want it admitted with two dry-run results", v)
	}
	if d := v.DryRun[0]; d.Policy != "ns1/would-deny" || d.Allow {
		t.Errorf("first dry run = %+v", d)
	}
	if d := v.DryRun[1]; d.Policy != "ns1/would-allow" || d.Allow || d.Why != "no allow policies match" {
		t.Errorf("second dry run = %+v", d)
	}
	if v := check(conn(peerB), of(allow), allowB); v.Allow {
		t.Errorf("a dry-run ALLOW opened what an ALLOW refuses: %+v", v)
	}
}

func TestWhyNamesTheRuleAndTheField(t *testing.T) {
	p := of(allow, clauses([]*M{principal("cluster.local/ns/ns1/sa/b")}))
	v := check(conn(peerA), p)
	want := "ALLOW policy ns1/p does not match: rule 0: principal cluster.local/ns/ns1/sa/a is not cluster.local/ns/ns1/sa/b"
	if v.Why != want || v.Policy != "ns1/p" {
		t.Errorf("Why = %q of %q, want %q of ns1/p", v.Why, v.Policy, want)
	}
	f := Collect([]*Policy{Compile(p)}).Explain(conn(peerB))
	if len(f) != 1 || !f[0].Matched || f[0].Action != Allow {
		t.Errorf("Explain() = %+v, want one matching ALLOW", f)
	}
}
