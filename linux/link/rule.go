package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// Rule sends packets to a routing table of their own: those that carry a mark, go to some addresses, or came in by an
// interface. What is zero does not matter.
type Rule struct {
	V6       bool
	Mark     uint32
	Mask     uint32 // 0: Mark does not matter
	To       netip.Prefix
	In       string
	Priority int
	Table    int
}

// Tables that every namespace has.
const (
	TableMain  = unix.RT_TABLE_MAIN
	TableLocal = unix.RT_TABLE_LOCAL
)

func (r Rule) String() string {
	s := "ip"
	if r.V6 {
		s = "ip6"
	}
	if r.Mask != 0 {
		s += fmt.Sprintf(" fwmark %#x/%#x", r.Mark, r.Mask)
	}
	if r.To.IsValid() {
		s += " to " + r.To.String()
	}
	if r.In != "" {
		s += " iif " + r.In
	}
	return fmt.Sprintf("%s pref %d lookup %d", s, r.Priority, r.Table)
}

func (r Rule) kernel() *netlink.Rule {
	nr := netlink.NewRule()
	nr.Family = r.family()
	nr.Priority, nr.Table, nr.IifName = r.Priority, r.Table, r.In
	if r.Mask != 0 {
		nr.Mark, nr.Mask = r.Mark, new(r.Mask)
	}
	if r.To.IsValid() {
		nr.Dst = ipNet(r.To)
	}
	return nr
}

// ruleOf is what of a kernel's rule a Rule can say.
func ruleOf(k netlink.Rule, v6 bool) Rule {
	r := Rule{V6: v6, In: k.IifName, Priority: k.Priority, Table: k.Table}
	if k.Mask != nil {
		r.Mark, r.Mask = k.Mark, *k.Mask
	}
	if k.Dst != nil {
		if a, ok := netip.AddrFromSlice(k.Dst.IP); ok {
			ones, _ := k.Dst.Mask.Size()
			r.To = netip.PrefixFrom(a.Unmap(), ones)
		}
	}
	return r
}

func (r Rule) family() int {
	if r.V6 {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

// Rules lists the rules of a family.
func Rules(ns *netns.Namespace, v6 bool) ([]Rule, error) {
	var all []Rule
	err := in(ns, func(h *netlink.Handle) error {
		list, err := h.RuleList(Rule{V6: v6}.family())
		for _, k := range list {
			all = append(all, ruleOf(k, v6))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list routing rules: %w", err)
	}
	return all, nil
}

// AddRule adds a rule.
func AddRule(ns *netns.Namespace, r Rule) error {
	err := in(ns, func(h *netlink.Handle) error { return h.RuleAdd(r.kernel()) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add rule %s: %w", r, err)
	}
	return nil
}

// DeleteRule removes a rule.
func DeleteRule(ns *netns.Namespace, r Rule) error {
	err := in(ns, func(h *netlink.Handle) error { return h.RuleDel(r.kernel()) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete rule %s: %w", r, err)
	}
	return nil
}

// HasRule reports whether the rule is there.
func HasRule(ns *netns.Namespace, r Rule) (bool, error) {
	all, err := Rules(ns, r.V6)
	return slices.Contains(all, r), err
}
