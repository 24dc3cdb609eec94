// Package table matches requests against the routes that l7 resources describe.
package table

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/api/l7"
)

// Table is everything a proxy serves at one moment. It is never written after Build.
type Table struct {
	Ports    []*Port // by address
	Backends map[string]*l7.Backend
	Secrets  map[string]*l7.Secret
	Routes   []*l7.Route // in force, by name
}

// Port is one socket and the listeners that share it.
type Port struct {
	Addr      netip.AddrPort
	Protocol  l7.Protocol // as Class gives it
	Listeners []*Listener // the oldest first
}

// Listener is one server of a gateway with the routes behind it.
type Listener struct {
	*l7.Listener
	Secrets []*l7.Secret // that have come, of those that it names
	Set     *Set
	Streams []*Stream // the first that matches wins
}

// Serves reports whether the listener is for the host, which must be canonical.
func (l *Listener) Serves(host string) bool {
	return slices.ContainsFunc(l.GetHosts(), func(pattern string) bool { return matchHost(pattern, host) })
}

// ForSNI finds the TLS listener of a server name: an exact host first, then the longest wildcard, then "*".
func (p *Port) ForSNI(name string) *Listener {
	var best *Listener
	rank := -1
	for _, l := range p.Listeners {
		for _, pattern := range l.GetHosts() {
			if r := hostRank(pattern); r > rank && matchHost(pattern, name) {
				best, rank = l, r
			}
		}
	}
	return best
}

// Plain finds the listener of a plain request: all plain listeners of a port share one set of routes.
func (p *Port) Plain(host string) *Listener {
	if l := p.ForSNI(host); l != nil {
		return l
	}
	if len(p.Listeners) > 0 {
		return p.Listeners[0]
	}
	return nil
}

// Set is the routes of one set, found by host.
type Set struct {
	exact    map[string]*Host
	wildcard []wildcard // the longest first
	any      *Host
}

type wildcard struct {
	suffix string // ".example.com"
	host   *Host
}

// Host finds the most specific entry for a canonical host: exact, then the longest wildcard, then "*".
func (s *Set) Host(name string) *Host {
	if s == nil {
		return nil
	}
	if h, ok := s.exact[name]; ok {
		return h
	}
	for _, w := range s.wildcard {
		if len(name) > len(w.suffix) && strings.HasSuffix(name, w.suffix) {
			return w.host
		}
	}
	return s.any
}

func (s *Set) add(h *Host) {
	for _, name := range h.hosts {
		switch {
		case name == "*":
			s.any = h
		case strings.HasPrefix(name, "*."):
			s.wildcard = append(s.wildcard, wildcard{name[1:], h})
		default:
			s.exact[name] = h
		}
	}
}

func matchHost(pattern, host string) bool {
	if pattern == "*" || pattern == host {
		return true
	}
	return strings.HasPrefix(pattern, "*.") && len(host) > len(pattern)-1 && strings.HasSuffix(host, pattern[1:])
}

// hostRank orders patterns by how specific they are.
func hostRank(pattern string) int {
	switch {
	case pattern == "*":
		return 0
	case strings.HasPrefix(pattern, "*"):
		return len(pattern)
	}
	return 1 << 16
}
