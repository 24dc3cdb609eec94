package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// Listing is a table as the kernel has it, one line per chain, rule, set and element, in a form made to be compared.
type Listing []string

// List reads a table by family and name; a table that is not there gives nil.
func List(ns *netns.Namespace, t Table) (Listing, error) { return list(ns, t, nil) }

// list leaves the elements of the sets named in live out.
func list(ns *netns.Namespace, t Table, live []string) (Listing, error) {
	var l Listing
	err := with(ns, func(c *nftables.Conn) error {
		table := t.kernel()
		tables, err := c.ListTablesOfFamily(table.Family)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(tables, func(have *nftables.Table) bool { return have.Name == t.Name }) {
			return nil
		}
		sets, err := c.GetSets(table)
		if err != nil {
			return fmt.Errorf("sets: %w", err)
		}
		for _, s := range sets {
			s.Table = table
			var elements []nftables.SetElement
			if !slices.Contains(live, s.Name) {
				if elements, err = c.GetSetElements(s); err != nil {
					return fmt.Errorf("set %s: %w", s.Name, err)
				}
			}
			l = append(l, setLines(s, elements)...)
		}
		chains, err := c.ListChainsOfTableFamily(table.Family)
		if err != nil {
			return fmt.Errorf("chains: %w", err)
		}
		for _, ch := range chains {
			if ch.Table.Name != t.Name {
				continue
			}
			rules, err := ruleLines(ns, table, ch.Name)
			if err != nil {
				return fmt.Errorf("rules of chain %s: %w", ch.Name, err)
			}
			l = append(l, chainLine(ch))
			l = append(l, rules...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list packet filter table %s: %w", t.Name, err)
	}
	return l, nil
}

// Compare says how the kernel's table differs from t, one line for each difference; nil if it does not.
func Compare(ns *netns.Namespace, t Table) ([]string, error) {
	p, err := t.compile()
	if err != nil {
		return nil, err
	}
	want, err := p.listing()
	if err != nil {
		return nil, err
	}
	var live []string
	for _, s := range t.Sets {
		if s.Live {
			live = append(live, s.Name)
		}
	}
	have, err := list(ns, t, live)
	if err != nil {
		return nil, err
	}
	return difference(want, have), nil
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
		elements := s.elements
		if s.live {
			elements = nil
		}
		l = append(l, setLines(s.set, elements)...)
	}
	for _, kc := range p.chains {
		l = append(l, chainLine(kc.chain))
		for _, exprs := range kc.rules {
			var line []string
			for _, e := range exprs {
				b, err := expr.Marshal(byte(p.table.Family), e)
				if err != nil {
					return nil, fmt.Errorf("encode rule: %w", err)
				}
				text, err := canonical(b)
				if err != nil {
					return nil, err
				}
				line = append(line, text)
			}
			l = append(l, ruleLine(kc.chain.Name, line))
		}
	}
	return l, nil
}

// setLines is the set and, sorted, its elements.
func setLines(s *nftables.Set, elements []nftables.SetElement) []string {
	var lines []string
	for _, e := range elements {
		line := fmt.Sprintf("element %s %x", s.Name, e.Key)
		if e.IntervalEnd {
			line += " end"
		}
		if len(e.Val) > 0 {
			line += fmt.Sprintf(" to %x", e.Val)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return append([]string{fmt.Sprintf("set %s map=%v interval=%v key=%d", s.Name, s.IsMap, s.Interval, s.KeyType.Bytes)}, lines...)
}

func chainLine(c *nftables.Chain) string {
	if c.Hooknum == nil {
		return "chain " + c.Name
	}
	policy := nftables.ChainPolicyAccept
	if c.Policy != nil {
		policy = *c.Policy
	}
	return fmt.Sprintf("chain %s type %s hook %d priority %d policy %d", c.Name, c.Type, *c.Hooknum, int32(*c.Priority), policy)
}

func ruleLine(chain string, exprs []string) string {
	return "rule " + chain + " " + strings.Join(exprs, " ")
}

// ruleLines reads the rules undecoded: an expression that we do not know must show as a difference.
func ruleLines(ns *netns.Namespace, t *nftables.Table, chain string) (lines []string, err error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
	req.AddRawData([]byte{byte(t.Family), unix.NFNETLINK_V0, 0, 0})
	req.AddRawData(nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(t.Name)).Serialize())
	req.AddRawData(nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain)).Serialize())
	var messages [][]byte
	err = netns.Do(ns, func() (err error) {
		messages, err = req.Execute(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if len(m) < 4 {
			return nil, errors.New("short answer")
		}
		attrs, err := attributes(m[4:])
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			if a.kind != unix.NFTA_RULE_EXPRESSIONS {
				continue
			}
			elements, err := attributes(a.value)
			if err != nil {
				return nil, err
			}
			var line []string
			for _, e := range elements {
				text, err := canonical(e.value)
				if err != nil {
					return nil, err
				}
				line = append(line, text)
			}
			lines = append(lines, ruleLine(chain, line))
		}
	}
	return lines, nil
}
