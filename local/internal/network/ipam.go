package network

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// ErrFull means that a node has no address left.
var ErrFull = errors.New("no pod address left on the node")

// IPAM gives out a node's pod addresses, one of each family. A freed address is given again only after all others
// were, so that nobody who remembers a dead pod's address reaches a new one.
type IPAM struct {
	prefixes []netip.Prefix

	mu   sync.Mutex // guards below
	used map[int]bool
	last int
}

// firstHost follows the gateway, which is .1; lastHost precedes the broadcast address.
const firstHost, lastHost = 2, 254

// NewIPAM gives out addresses of the prefixes.
func NewIPAM(prefixes []netip.Prefix) *IPAM {
	return &IPAM{prefixes: prefixes, used: map[int]bool{}, last: firstHost - 1}
}

// Take is the next address of each family.
func (p *IPAM) Take() ([]netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range lastHost - firstHost + 1 {
		if p.last++; p.last > lastHost {
			p.last = firstHost
		}
		if !p.used[p.last] {
			p.used[p.last] = true
			return p.addrs(p.last), nil
		}
	}
	return nil, fmt.Errorf("%w: %d pods", ErrFull, len(p.used))
}

// Give takes addresses back.
func (p *IPAM) Give(addrs []netip.Addr) {
	if len(addrs) == 0 {
		return
	}
	b := addrs[0].As16()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, int(b[15]))
}

func (p *IPAM) addrs(host int) []netip.Addr {
	all := make([]netip.Addr, len(p.prefixes))
	for i, prefix := range p.prefixes {
		all[i] = hostOf(prefix, byte(host))
	}
	return all
}

// hostOf is an address of a prefix by its last byte.
func hostOf(p netip.Prefix, host byte) netip.Addr {
	if p.Addr().Is4() {
		b := p.Addr().As4()
		b[3] = host
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	b[15] = host
	return netip.AddrFrom16(b)
}
