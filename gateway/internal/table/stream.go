package table

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/api/l7"
)

// Stream is one compiled rule for whole connections.
type Stream struct {
	*Forward
	Source string

	matches []streamMatch
}

type streamMatch struct {
	names   []string
	subnets []netip.Prefix
}

func compileStreams(rules []*l7.StreamRule) ([]*Stream, error) {
	var out []*Stream
	for i, r := range rules {
		s := &Stream{Forward: newForward(r.GetDestinations()), Source: r.GetSource()}
		for _, m := range r.GetMatches() {
			c := streamMatch{names: m.GetSniHosts()}
			for _, text := range m.GetDestinationSubnets() {
				p, err := subnet(text)
				if err != nil {
					return nil, fmt.Errorf("stream %d %s: %w", i, r.GetSource(), err)
				}
				c.subnets = append(c.subnets, p)
			}
			s.matches = append(s.matches, c)
		}
		out = append(out, s)
	}
	return out, nil
}

// subnet reads a network, or an address as the network of it alone.
func subnet(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// Stream finds the rule of a connection by the name in TLS, which must be canonical, and the address that was dialled.
func (l *Listener) Stream(name string, to netip.Addr) *Stream {
	for _, s := range l.Streams {
		if len(s.matches) == 0 || slices.ContainsFunc(s.matches, func(m streamMatch) bool { return m.holds(name, to) }) {
			return s
		}
	}
	return nil
}

func (m streamMatch) holds(name string, to netip.Addr) bool {
	if len(m.names) > 0 && !slices.ContainsFunc(m.names, func(p string) bool { return matchHost(p, name) }) {
		return false
	}
	return len(m.subnets) == 0 || slices.ContainsFunc(m.subnets, func(p netip.Prefix) bool { return p.Contains(to.Unmap()) })
}

// Class is what a port does with a connection at first: all that begin with TLS share a port.
func Class(p l7.Protocol) l7.Protocol {
	if p == l7.Protocol_TLS_PASSTHROUGH || p == l7.Protocol_TLS_TERMINATE {
		return l7.Protocol_HTTPS
	}
	return p
}
