package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
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

// Of linux/fib_rules.h.
const (
	ruleHeader = 12 // struct fib_rule_hdr
	toTable    = 1  // FR_ACT_TO_TBL
)

// write adds a message about the rule.
func (r Rule) write(m *nlsock.Messages, kind, flags uint16) {
	bits := 0
	if r.To.IsValid() {
		bits = r.To.Bits()
	}
	m.Begin(kind, flags, byte(r.family()), byte(bits), 0, 0, unix.RT_TABLE_UNSPEC, 0, 0, toTable, 0, 0, 0, 0)
	if r.To.IsValid() {
		m.Attr(unix.FRA_DST, r.To.Addr().AsSlice()...)
	}
	if r.In != "" {
		m.Text(unix.FRA_IIFNAME, r.In)
	}
	if r.Mask != 0 {
		m.Uint32(unix.FRA_FWMARK, r.Mark)
		m.Uint32(unix.FRA_FWMASK, r.Mask)
	}
	m.Uint32(unix.FRA_PRIORITY, uint32(r.Priority))
	m.Uint32(unix.FRA_TABLE, uint32(r.Table))
}

// rulesOf lists rules, what of them a Rule can say, of one family or of both.
func rulesOf(s *nlsock.Socket, family byte) ([]Rule, error) {
	var m nlsock.Messages
	m.Begin(unix.RTM_GETRULE, unix.NLM_F_DUMP, append([]byte{family}, make([]byte, ruleHeader-1)...)...)
	answers, err := s.Dump(&m)
	var all []Rule
	for _, a := range answers {
		if len(a.Body) < ruleHeader || a.Body[0] != unix.AF_INET && a.Body[0] != unix.AF_INET6 {
			continue
		}
		attrs := nlsock.Attributes(a.Body[ruleHeader:])
		r := Rule{V6: a.Body[0] == unix.AF_INET6, In: string(bytes.TrimRight(attrs[unix.FRA_IIFNAME], "\x00")), Table: tableOf(a.Body[4], attrs[unix.FRA_TABLE])}
		if v := attrs[unix.FRA_PRIORITY]; len(v) == 4 {
			r.Priority = int(binary.NativeEndian.Uint32(v))
		}
		if mark, mask := attrs[unix.FRA_FWMARK], attrs[unix.FRA_FWMASK]; len(mask) == 4 && binary.NativeEndian.Uint32(mask) != 0 {
			r.Mask = binary.NativeEndian.Uint32(mask)
			if len(mark) == 4 {
				r.Mark = binary.NativeEndian.Uint32(mark)
			}
		}
		if to, ok := netip.AddrFromSlice(attrs[unix.FRA_DST]); ok {
			r.To = netip.PrefixFrom(to, int(a.Body[1]))
		}
		all = append(all, r)
	}
	return all, err
}

func (r Rule) family() int {
	if r.V6 {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

// Rules lists the rules of a family.
func Rules(ns *netns.Namespace, v6 bool) (all []Rule, err error) {
	err = nlsock.With(ns, unix.NETLINK_ROUTE, func(s *nlsock.Socket) (err error) {
		all, err = rulesOf(s, byte(Rule{V6: v6}.family()))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list routing rules: %w", err)
	}
	return all, nil
}

// AddRule adds a rule.
func AddRule(ns *netns.Namespace, r Rule) error {
	err := r.tell(ns, unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add rule %s: %w", r, err)
	}
	return nil
}

// DeleteRule removes a rule.
func DeleteRule(ns *netns.Namespace, r Rule) error {
	err := r.tell(ns, unix.RTM_DELRULE, unix.NLM_F_ACK)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete rule %s: %w", r, err)
	}
	return nil
}

func (r Rule) tell(ns *netns.Namespace, kind, flags uint16) error {
	var m nlsock.Messages
	r.write(&m, kind, flags)
	return nlsock.With(ns, unix.NETLINK_ROUTE, func(s *nlsock.Socket) error {
		failed, err := s.Do(&m)
		return errors.Join(append(failed, err)...)
	})
}

// HasRule reports whether the rule is there.
func HasRule(ns *netns.Namespace, r Rule) (bool, error) {
	all, err := Rules(ns, r.V6)
	return slices.Contains(all, r), err
}
