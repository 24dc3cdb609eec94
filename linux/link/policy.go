package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
)

// Policy is rules and the routes of their tables, made and compared at once: what leads the packets of a captured pod back into
// it. Its routes are local ones on loopback.
type Policy struct {
	Rules  []Rule
	Routes []Route
}

// loopback is the index of lo in every namespace.
const loopback = 1

// Ensure adds what is missing; the routes come first.
func (p Policy) Ensure(ns *netns.Namespace) error {
	var m nlsock.Messages
	for _, r := range p.Routes {
		if !r.Local || r.Link != "lo" || r.Via.IsValid() {
			return fmt.Errorf("add route %s: not a local one on loopback", r)
		}
		r.add(&m)
	}
	for _, r := range p.Rules {
		r.write(&m, unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	}
	var failed []error
	err := nlsock.With(ns, unix.NETLINK_ROUTE, func(s *nlsock.Socket) (err error) {
		failed, err = s.Do(&m)
		return err
	})
	if err != nil {
		return fmt.Errorf("add routes and rules: %w", err)
	}
	for i, err := range failed {
		switch {
		case err == nil || errors.Is(err, unix.EEXIST) && i >= len(p.Routes):
		case i < len(p.Routes):
			return fmt.Errorf("add route %s: %w", p.Routes[i], err)
		default:
			return fmt.Errorf("add rule %s: %w", p.Rules[i-len(p.Routes)], err)
		}
	}
	return nil
}

// Missing lists what is not there, one line each.
func (p Policy) Missing(ns *netns.Namespace) (lines []string, err error) {
	err = nlsock.With(ns, unix.NETLINK_ROUTE, func(s *nlsock.Socket) error {
		rules, err := rulesOf(s, unix.AF_UNSPEC)
		if err != nil {
			return err
		}
		for _, r := range p.Rules {
			if !slices.Contains(rules, r) {
				lines = append(lines, fmt.Sprintf("missing: rule %s", r))
			}
		}
		routes, err := localRoutes(s)
		if err != nil {
			return err
		}
		for _, r := range p.Routes {
			if !slices.Contains(routes, r) {
				lines = append(lines, fmt.Sprintf("missing: route %s", r))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list routes and rules: %w", err)
	}
	return lines, nil
}

// add writes the message that makes a local route on loopback.
func (r Route) add(m *nlsock.Messages) {
	m.Begin(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK, byte(family(r.To.Addr())), byte(r.To.Bits()), 0, 0,
		unix.RT_TABLE_UNSPEC, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0)
	if r.To.Bits() > 0 {
		m.Attr(unix.RTA_DST, r.To.Addr().AsSlice()...)
	}
	m.Uint32(unix.RTA_OIF, loopback)
	m.Uint32(unix.RTA_TABLE, uint32(r.Table))
}

// localRoutes lists the local routes on loopback, of both families and all tables.
func localRoutes(s *nlsock.Socket) ([]Route, error) {
	var m nlsock.Messages
	m.Begin(unix.RTM_GETROUTE, unix.NLM_F_DUMP, make([]byte, unix.SizeofRtMsg)...)
	answers, err := s.Dump(&m)
	var all []Route
	for _, a := range answers {
		if len(a.Body) < unix.SizeofRtMsg || a.Body[7] != unix.RTN_LOCAL {
			continue
		}
		to, attrs := netip.IPv4Unspecified(), nlsock.Attributes(a.Body[unix.SizeofRtMsg:])
		if a.Body[0] == unix.AF_INET6 {
			to = netip.IPv6Unspecified()
		}
		if dst, ok := netip.AddrFromSlice(attrs[unix.RTA_DST]); ok {
			to = dst
		}
		if oif := attrs[unix.RTA_OIF]; len(oif) == 4 && binary.NativeEndian.Uint32(oif) == loopback && attrs[unix.RTA_GATEWAY] == nil {
			all = append(all, Route{To: netip.PrefixFrom(to, int(a.Body[1])), Link: "lo", Table: tableOf(a.Body[4], attrs[unix.RTA_TABLE]), Local: true})
		}
	}
	return all, err
}

// tableOf reads a table's number, which may be too large for its old place.
func tableOf(short byte, long []byte) int {
	if len(long) == 4 {
		return int(binary.NativeEndian.Uint32(long))
	}
	return int(short)
}
