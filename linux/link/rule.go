package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// Rule sends packets that carry a mark to a routing table of their own.
type Rule struct {
	V6       bool
	Mark     uint32
	Mask     uint32
	Priority int
	Table    int
}

func (r Rule) String() string {
	f := "ip"
	if r.V6 {
		f = "ip6"
	}
	return fmt.Sprintf("%s fwmark %#x/%#x pref %d lookup %d", f, r.Mark, r.Mask, r.Priority, r.Table)
}

func (r Rule) kernel() *netlink.Rule {
	nr := netlink.NewRule()
	nr.Family = r.family()
	nr.Mark, nr.Mask, nr.Priority, nr.Table = r.Mark, new(r.Mask), r.Priority, r.Table
	return nr
}

func (r Rule) family() int {
	if r.V6 {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
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
	found := false
	err := in(ns, func(h *netlink.Handle) error {
		all, err := h.RuleList(r.family())
		if err != nil {
			return err
		}
		for _, have := range all {
			if have.Priority == r.Priority && have.Table == r.Table && have.Mark == r.Mark &&
				have.Mask != nil && *have.Mask == r.Mask {
				found = true
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("find rule %s: %w", r, err)
	}
	return found, nil
}
