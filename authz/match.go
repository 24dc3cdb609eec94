package authz

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/identity"
)

// Conn is a connection to decide on. Peer is the zero identity when nobody proved one. To is the application's
// own address and port, whatever the client dialled.
type Conn struct {
	Peer identity.ID
	From netip.Addr
	To   netip.AddrPort
}

func (c Conn) canonical() Conn {
	c.From = c.From.Unmap()
	c.To = netip.AddrPortFrom(c.To.Addr().Unmap(), c.To.Port())
	return c
}

// matches reports whether any rule matches, which one, and what decided.
func (p *Policy) matches(c Conn) (ok bool, why string) {
	if len(p.rules) == 0 {
		return false, "it has no rules, which match nothing"
	}
	var first string
	for i, r := range p.rules {
		ok, why := r.matches(c)
		why = fmt.Sprintf("rule %d: %s", i, why)
		if ok {
			return true, why
		}
		if i == 0 {
			first = why
		}
	}
	if n := len(p.rules); n > 1 {
		return false, fmt.Sprintf("none of %d rules matches; %s", n, first)
	}
	return false, first
}

func (r rule) matches(c Conn) (ok bool, why string) {
	if len(r) == 0 {
		return true, "it has no conditions"
	}
	reasons := make([]string, 0, len(r))
	for _, cl := range r {
		ok, why := cl.matches(c)
		if !ok {
			return false, why
		}
		reasons = append(reasons, why)
	}
	return true, strings.Join(reasons, ", ")
}

func (cl clause) matches(c Conn) (ok bool, why string) {
	if len(cl) == 0 {
		return true, "a clause without conditions"
	}
	var first string
	for i, m := range cl {
		ok, why := m.matches(c)
		if ok {
			return true, why
		}
		if i == 0 {
			first = why
		}
	}
	return false, first
}

// matches needs every field that is set: one of its values, none of its not-values.
func (m match) matches(c Conn) (ok bool, why string) {
	if m.empty {
		return false, "an empty match matches nothing"
	}
	fields := [...]field{
		texts("principal", c.Peer.Principal(), m.principals, m.notPrincipals),
		texts("namespace", c.Peer.Namespace, m.namespaces, m.notNamespaces),
		accounts(c.Peer, m.accounts, m.notAccounts),
		addresses("source ip", c.From, m.sources, m.notSources),
		addresses("destination ip", c.To.Addr(), m.destinations, m.notDests),
		ports(c.To.Port(), m.ports, m.notPorts),
	}
	var reasons []string
	for _, f := range fields {
		switch {
		case !f.set:
		case !f.ok:
			return false, f.why
		default:
			reasons = append(reasons, f.why)
		}
	}
	return true, strings.Join(reasons, " and ")
}

// field is the outcome of one field of a match.
type field struct {
	set, ok bool
	why     string
}

// decide applies the one rule of all fields: one of want if there is any, none of not.
func decide[T fmt.Stringer](name, have string, want, not []T, is func(T) bool) field {
	if len(want)+len(not) == 0 {
		return field{}
	}
	if have == "" {
		have = "unknown"
	}
	if i := slices.IndexFunc(not, is); i >= 0 {
		return field{true, false, fmt.Sprintf("%s %s is excluded by %s", name, have, not[i])}
	}
	if len(want) == 0 {
		return field{true, true, fmt.Sprintf("%s %s is not %s", name, have, list(not))}
	}
	if i := slices.IndexFunc(want, is); i >= 0 {
		return field{true, true, fmt.Sprintf("%s %s is %s", name, have, want[i])}
	}
	return field{true, false, fmt.Sprintf("%s %s is not %s", name, have, list(want))}
}

// list names at most four values, so that a large policy does not make a large log line.
func list[T fmt.Stringer](values []T) string {
	const most = 4
	names := make([]string, 0, most+1)
	for i, v := range values {
		if i == most {
			names = append(names, fmt.Sprintf("%d more", len(values)-most))
			break
		}
		names = append(names, v.String())
	}
	return strings.Join(names, " or ")
}

// texts fails for a peer that proved nothing: the value is absent, not empty.
func texts(name, have string, want, not []text) field {
	return decide(name, have, want, not, func(t text) bool { return have != "" && t.matches(have) })
}

func (t text) matches(have string) bool {
	switch t.kind {
	case exact:
		return have == t.value
	case prefix:
		return strings.HasPrefix(have, t.value)
	case suffix:
		return strings.HasSuffix(have, t.value)
	case present:
		return true
	}
	return false
}

func (a account) String() string { return a.namespace + "/" + a.name }

func accounts(peer identity.ID, want, not []account) field {
	have := account{peer.Namespace, peer.ServiceAccount}
	name := ""
	if !peer.IsZero() {
		name = have.String()
	}
	return decide("service account", name, want, not, func(a account) bool { return !peer.IsZero() && a == have })
}

func addresses(name string, have netip.Addr, want, not []netip.Prefix) field {
	return decide(name, have.String(), want, not, func(p netip.Prefix) bool { return p.Contains(have) })
}

type port uint16

func (p port) String() string { return fmt.Sprint(uint16(p)) }

func ports(have uint16, want, not []uint16) field {
	return decide("port", port(have).String(), asPorts(want), asPorts(not), func(p port) bool { return uint16(p) == have })
}

func asPorts(in []uint16) []port {
	out := make([]port, len(in))
	for i, p := range in {
		out[i] = port(p)
	}
	return out
}
