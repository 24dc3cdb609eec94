// Package nft describes packet-filter tables as values, puts them into the kernel whole, and compares them with what is there.
//
// A table is applied in one transaction that replaces what stood there before:
//
//	nft.Apply(ns, nft.Table{Family: nft.INet, Name: "demo", Chains: []nft.Chain{{
//		Name: "prerouting", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDNAT,
//		Rules: []nft.Rule{
//			nft.If(nft.Daddr(vip), nft.TCP(), nft.Dport(80)).Then(nft.DNAT(endpoint1, endpoint2)),
//		},
//	}}})
//
// No program is run: it speaks netlink. Table.String is the same table in the words of nft(8).
package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Family says which packets a table sees.
type Family uint8

// The families of tables.
const (
	INet Family = iota // IPv4 and IPv6
	IPv4
	IPv6
	Bridge // frames between ports of a bridge
)

func (f Family) String() string { return [...]string{"inet", "ip", "ip6", "bridge"}[f] }

// Table is a set of chains that is replaced as a whole.
type Table struct {
	Family Family
	Name   string
	Sets   []Set
	Chains []Chain
}

// Hook is where in a packet's way a chain runs; None makes a chain that only Jump reaches.
type Hook uint8

// The hooks.
const (
	None Hook = iota
	Prerouting
	Input
	Forward
	Output
	Postrouting
)

func (h Hook) String() string {
	return [...]string{"", "prerouting", "input", "forward", "output", "postrouting"}[h]
}

// Type is what the rules of a base chain may do.
type Type uint8

// The types of base chains.
const (
	Filter  Type = iota // accept, drop, mark
	NAT                 // first packet of a connection: addresses
	Reroute             // as Filter, on Output: a changed mark changes the route
)

func (t Type) String() string { return [...]string{"filter", "nat", "route"}[t] }

// Priorities at which chains usually run: lower first.
const (
	PriorityRaw    = -300 // before connection tracking
	PriorityMangle = -150
	PriorityDNAT   = -100
	PriorityFilter = 0
	PrioritySNAT   = 100
)

// Chain is a list of rules, tried in order.
type Chain struct {
	Name     string
	Type     Type
	Hook     Hook
	Priority int
	Drop     bool // what happens to a packet that no rule decides; false accepts
	Rules    []Rule
}

// Rule does its actions to packets for which every match holds.
type Rule struct {
	matches []Match
	actions []Action
	comment string
}

// If starts a rule. Without matches it is for every packet.
func If(m ...Match) Rule { return Rule{matches: m} }

// Then ends a rule with what is done.
func (r Rule) Then(a ...Action) Rule {
	r.actions = append(slices.Clone(r.actions), a...)
	return r
}

// Comment names the rule for people who list the table.
func (r Rule) Comment(text string) Rule {
	r.comment = text
	return r
}

// SetKind is what a set holds.
type SetKind uint8

// The kinds of sets.
const (
	AddrsV4 SetKind = iota
	AddrsV6
	PrefixesV4
	PrefixesV6
)

func (k SetKind) v6() bool       { return k == AddrsV6 || k == PrefixesV6 }
func (k SetKind) interval() bool { return k == PrefixesV4 || k == PrefixesV6 }

// Set is a named set of addresses that rules look into. Prefixes must not overlap.
type Set struct {
	Name     string
	Kind     SetKind
	Elements []netip.Prefix // whole addresses in the kinds Addrs
	Live     bool           // elements are added and removed later, with AddAddrs; Compare ignores them
}

// Host is the address as a prefix: an element of a set of addresses.
func Host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", t.Family, t.Name)
	for _, s := range t.Sets {
		kind := "ipv4_addr"
		if s.Kind.v6() {
			kind = "ipv6_addr"
		}
		fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.Name, kind)
		if s.Kind.interval() {
			b.WriteString("\t\tflags interval\n")
		}
		if len(s.Elements) > 0 {
			var words []string
			for _, e := range s.Elements {
				words = append(words, prefixText(e))
			}
			fmt.Fprintf(&b, "\t\telements = { %s }\n", strings.Join(words, ", "))
		}
		b.WriteString("\t}\n")
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if c.Hook != None {
			policy := "accept"
			if c.Drop {
				policy = "drop"
			}
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy %s;\n", c.Type, c.Hook, c.Priority, policy)
		}
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (r Rule) String() string {
	var words []string
	for _, m := range r.matches {
		words = append(words, m.text)
	}
	for _, a := range r.actions {
		words = append(words, a.text)
	}
	if r.comment != "" {
		words = append(words, fmt.Sprintf("comment %q", r.comment))
	}
	return strings.Join(words, " ")
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
