package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
)

// Listing is a table as the kernel has it, one line per chain, rule, set and element, in a form made to be compared.
type Listing []string

// List reads a table by family and name; a table that is not there gives nil.
func List(ns *netns.Namespace, t Table) (l Listing, err error) {
	err = with(ns, func(s *nlsock.Socket) (err error) {
		l, err = list(s, t.Family.kernel(), t.Name, nil)
		return err
	})
	return l, err
}

// list leaves the elements of the sets named in live out.
func list(s *nlsock.Socket, family byte, name string, live []string) (Listing, error) {
	l, err := listing(s, family, name, live)
	if err != nil {
		return nil, fmt.Errorf("list packet filter table %s: %w", name, err)
	}
	return l, nil
}

func listing(s *nlsock.Socket, family byte, name string, live []string) (Listing, error) {
	var m nlsock.Messages
	begin(&m, unix.NFT_MSG_GETTABLE, unix.NLM_F_ACK, family)
	m.Text(unix.NFTA_TABLE_NAME, name)
	if _, err := s.Dump(&m); errors.Is(err, unix.ENOENT) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	l, err := setsOf(s, family, name, live)
	if err != nil {
		return nil, fmt.Errorf("sets: %w", err)
	}
	rules, err := rulesOf(s, family, name)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	chains, err := dumpOf(s, unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, family, name)
	if err != nil {
		return nil, fmt.Errorf("chains: %w", err)
	}
	for _, a := range chains {
		c, err := parseChain(a)
		if err != nil {
			return nil, fmt.Errorf("chains: %w", err)
		}
		l = append(l, chainLine(c))
		l = append(l, rules[c.name]...)
	}
	return l, nil
}

// Compare says how the kernel's table differs from t, one line for each difference; nil if it does not.
func Compare(ns *netns.Namespace, t Table) (d []string, err error) {
	p, err := Compile(t)
	if err != nil {
		return nil, err
	}
	return p.Differences(ns)
}

// difference compares as lists: the order of rules is part of their meaning. Sets and chains are sorted by name in both.
func difference(want, have Listing) []string {
	want, have = grouped(want), grouped(have)
	if slices.Equal(want, have) {
		return nil
	}
	d := append(without("missing: ", want, have), without("foreign: ", have, want)...)
	if d == nil {
		d = append(d, "rules in another order or number")
	}
	return d
}

// without lists what is in a and not in b.
func without(word string, a, b Listing) []string {
	in := make(map[string]bool, len(b))
	for _, line := range b {
		in[line] = true
	}
	var d []string
	for _, line := range a {
		if !in[line] {
			d = append(d, word+line)
		}
	}
	return d
}

// grouped sorts the groups that start with a set or chain line, keeping the rules of each chain, and elements, in order.
func grouped(l Listing) Listing {
	var groups []string
	for _, line := range l {
		if (strings.HasPrefix(line, "rule ") || strings.HasPrefix(line, "element ")) && len(groups) > 0 {
			groups[len(groups)-1] += "\n" + line
			continue
		}
		groups = append(groups, line)
	}
	slices.Sort(groups)
	if len(groups) == 0 {
		return nil
	}
	return strings.Split(strings.Join(groups, "\n"), "\n")
}

func (p *program) listing() (Listing, error) {
	var l Listing
	for _, s := range p.sets {
		if s.live {
			s.elements = nil
		}
		l = append(l, setLines(s)...)
	}
	for _, c := range p.chains {
		l = append(l, chainLine(c))
		for _, exprs := range c.rules {
			var line []string
			for _, e := range exprs {
				b, err := expr.Marshal(p.family, e)
				if err != nil {
					return nil, fmt.Errorf("encode rule: %w", err)
				}
				text, err := canonical(b)
				if err != nil {
					return nil, err
				}
				line = append(line, text)
			}
			l = append(l, ruleLine(c.name, line))
		}
	}
	return l, nil
}

// setLines is the set and, sorted, its elements.
func setLines(s kernelSet) []string {
	var lines []string
	for _, e := range s.elements {
		line := fmt.Sprintf("element %s %x", s.name, e.key)
		if e.end {
			line += " end"
		}
		if len(e.value) > 0 {
			line += fmt.Sprintf(" to %x", e.value)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return append([]string{fmt.Sprintf("set %s map=%v interval=%v key=%d", s.name, s.isMap, s.interval, s.key.size)}, lines...)
}

func chainLine(c kernelChain) string {
	if c.kind == "" {
		return "chain " + c.name
	}
	return fmt.Sprintf("chain %s type %s hook %d priority %d policy %d", c.name, c.kind, c.hook, c.priority, c.policy)
}

func ruleLine(chain string, exprs []string) string {
	return "rule " + chain + " " + strings.Join(exprs, " ")
}
