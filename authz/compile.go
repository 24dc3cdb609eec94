// Package authz decides whether a connection is authorized, and says why.
//
// Policies are compiled once and are immutable. Evaluation is Istio's layer 4 evaluation, made stricter in one way:
// a policy that applies but was not received, or that says something we do not understand, denies.
package authz

import (
	"fmt"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/identity"
)

// Action is what a policy does to the connections that it matches.
type Action uint8

// The actions. The zero value denies.
const (
	Deny Action = iota
	Allow
)

func (a Action) String() string {
	if a == Allow {
		return "ALLOW"
	}
	return "DENY"
}

// Scope is whom a policy applies to.
type Scope uint8

// The scopes. The zero value reaches furthest.
const (
	Mesh Scope = iota
	Namespace
	Selected // only workloads that name it
)

func (s Scope) String() string {
	switch s {
	case Namespace:
		return "Namespace"
	case Selected:
		return "WorkloadSelector"
	}
	return "Global"
}

// Policy is one compiled policy.
type Policy struct {
	Namespace, Name string
	Action          Action
	Scope           Scope
	DryRun          bool
	// Problem says what of the policy is not understood; such a policy denies everything that it applies to.
	Problem string

	rules []rule
}

// Key is the name by which workloads and logs refer to the policy.
func (p *Policy) Key() string { return p.Namespace + "/" + p.Name }

type rule []clause

// clause holds alternatives; none means that it matches.
type clause []match

type match struct {
	namespaces, notNamespaces []text
	accounts, notAccounts     []account
	principals, notPrincipals []text
	sources, notSources       []netip.Prefix
	destinations, notDests    []netip.Prefix
	ports, notPorts           []uint16
	empty                     bool
}

type account struct{ namespace, name string }

type textKind uint8

const (
	exact textKind = iota
	prefix
	suffix
	present
)

type text struct {
	kind  textKind
	value string
}

func (t text) String() string {
	switch t.kind {
	case prefix:
		return t.value + "*"
	case suffix:
		return "*" + t.value
	case present:
		return "*"
	}
	return t.value
}

// Compile makes a policy ready for evaluation. It never fails: what it does not understand becomes Policy.Problem.
func Compile(a *authorization.Authorization) *Policy {
	p := &Policy{Namespace: a.GetNamespace(), Name: a.GetName(), DryRun: a.GetDryRun()}
	problem := func(format string, args ...any) {
		if p.Problem == "" {
			p.Problem = fmt.Sprintf(format, args...)
		}
	}
	if err := known(a.ProtoReflect()); err != nil {
		problem("%v", err)
	}
	switch a.GetAction() {
	case authorization.Action_ALLOW:
		p.Action = Allow
	case authorization.Action_DENY:
		p.Action = Deny
	default:
		problem("action %d is not known", a.GetAction())
	}
	switch a.GetScope() {
	case authorization.Scope_GLOBAL:
		p.Scope = Mesh
	case authorization.Scope_NAMESPACE:
		p.Scope = Namespace
	case authorization.Scope_WORKLOAD_SELECTOR:
		p.Scope = Selected
	default:
		// Whom it was meant for is unknown: its own namespace is as far as its author could reach.
		p.Scope = Namespace
		problem("scope %d is not known", a.GetScope())
	}
	if x := a.GetExtensions(); len(x) > 0 {
		problem("extension %q is not known", x[0].GetName())
	}
	for i, r := range a.GetRules() {
		compiled, err := compileRule(r)
		if err != nil {
			problem("rule %d: %v", i, err)
			continue
		}
		p.rules = append(p.rules, compiled)
	}
	return p
}

func compileRule(r *authorization.Rule) (rule, error) {
	if err := known(r.ProtoReflect()); err != nil {
		return nil, err
	}
	out := rule{}
	for _, c := range r.GetClauses() {
		if err := known(c.ProtoReflect()); err != nil {
			return nil, err
		}
		cl := clause{}
		for _, m := range c.GetMatches() {
			compiled, err := compileMatch(m)
			if err != nil {
				return nil, err
			}
			cl = append(cl, compiled)
		}
		out = append(out, cl)
	}
	return out, nil
}

func compileMatch(m *authorization.Match) (match, error) {
	if err := known(m.ProtoReflect()); err != nil {
		return match{}, err
	}
	if x := m.GetExtensions(); len(x) > 0 {
		return match{}, fmt.Errorf("extension %q is not known", x[0].GetName())
	}
	var b builder
	out := match{
		namespaces: b.texts(m.GetNamespaces(), ""), notNamespaces: b.texts(m.GetNotNamespaces(), ""),
		principals:    b.texts(m.GetPrincipals(), identity.Scheme),
		notPrincipals: b.texts(m.GetNotPrincipals(), identity.Scheme),
		accounts:      b.accounts(m.GetServiceAccounts()), notAccounts: b.accounts(m.GetNotServiceAccounts()),
		sources: b.prefixes(m.GetSourceIps()), notSources: b.prefixes(m.GetNotSourceIps()),
		destinations: b.prefixes(m.GetDestinationIps()), notDests: b.prefixes(m.GetNotDestinationIps()),
		ports: b.ports(m.GetDestinationPorts()), notPorts: b.ports(m.GetNotDestinationPorts()),
		empty: true,
	}
	out.empty = b.values == 0
	return out, b.err
}

// builder converts the fields of a match and keeps the first error.
type builder struct {
	values int
	err    error
}

func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *builder) texts(in []*authorization.StringMatch, scheme string) []text {
	var out []text
	for _, s := range in {
		b.values++
		if err := known(s.ProtoReflect()); err != nil {
			b.fail(err)
		}
		switch t := s.GetMatchType().(type) {
		case *authorization.StringMatch_Exact:
			out = append(out, text{exact, strings.TrimPrefix(t.Exact, scheme)})
		case *authorization.StringMatch_Prefix:
			out = append(out, text{prefix, strings.TrimPrefix(t.Prefix, scheme)})
		case *authorization.StringMatch_Suffix:
			out = append(out, text{suffix, t.Suffix})
		case *authorization.StringMatch_Presence:
			out = append(out, text{kind: present})
		default:
			b.fail(fmt.Errorf("a string match of an unknown kind"))
		}
	}
	return out
}

func (b *builder) accounts(in []*authorization.ServiceAccountMatch) []account {
	var out []account
	for _, a := range in {
		b.values++
		if err := known(a.ProtoReflect()); err != nil {
			b.fail(err)
		}
		out = append(out, account{a.GetNamespace(), a.GetServiceAccount()})
	}
	return out
}

// prefixes are canonical: an IPv4-mapped IPv6 address becomes IPv4, host bits are cleared.
func (b *builder) prefixes(in []*authorization.Address) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range in {
		b.values++
		if err := known(a.ProtoReflect()); err != nil {
			b.fail(err)
		}
		addr, ok := netip.AddrFromSlice(a.GetAddress())
		if !ok {
			b.fail(fmt.Errorf("an IP address of %d bytes", len(a.GetAddress())))
			continue
		}
		bits := int64(a.GetLength())
		if addr.Is4In6() {
			if bits < 96 {
				b.fail(fmt.Errorf("IP block %s/%d: an IPv4-mapped block is /96 or narrower", addr, bits))
				continue
			}
			addr, bits = addr.Unmap(), bits-96
		}
		if bits > int64(addr.BitLen()) {
			b.fail(fmt.Errorf("IP block %s/%d is longer than its address", addr, bits))
			continue
		}
		out = append(out, netip.PrefixFrom(addr, int(bits)).Masked())
	}
	return out
}

func (b *builder) ports(in []uint32) []uint16 {
	var out []uint16
	for _, p := range in {
		b.values++
		if p > 65535 {
			b.fail(fmt.Errorf("port %d is above 65535", p))
			continue
		}
		out = append(out, uint16(p))
	}
	return out
}

// known refuses a message with fields that this program does not know: they may narrow or widen what it means.
func known(m protoreflect.Message) error {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%s has a field that is not known", m.Descriptor().Name())
	}
	return nil
}
