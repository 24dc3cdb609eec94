package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/node/internal/capture"
)

// Probes keeps the node's list of the pods whose probes bypass the proxy.
type Probes struct {
	// Source is how they are told from everybody else's connections.
	Source capture.Source

	mu   sync.Mutex // guards below and makes changes of the kernel's table one after the other
	pods map[netip.Addr]bool
	led  map[netip.Addr][]link.Rule // routing rules that their probes need; see branch
}

// Ensure makes the node's table right, keeping the pods that an earlier agent put there: their probes must not fail meanwhile.
func (p *Probes) Ensure() (changed bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := nft.Compare(nil, p.Source.Host(nil))
	if err != nil {
		return false, fmt.Errorf("compare probe exemption: %w", err)
	}
	have, err := p.current()
	if err != nil {
		return false, err
	}
	lost := slices.DeleteFunc(p.allLocked(), func(a netip.Addr) bool { return slices.Contains(have, a) })
	if len(d) == 0 {
		return len(lost) > 0, p.changeLocked(lost, nft.AddAddrs)
	}
	if err := nft.Apply(nil, p.Source.Host(append(have, lost...))); err != nil {
		return false, fmt.Errorf("probe exemption: %w", err)
	}
	return true, nil
}

// Guard keeps pods of one bridge from forging probes to each other. A kernel without packet filters for bridges cannot.
func (p *Probes) Guard() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := nft.Compare(nil, p.Source.Bridges())
	if err == nil && len(d) > 0 {
		err = nft.Apply(nil, p.Source.Bridges())
	}
	if err != nil {
		return fmt.Errorf("guard bridges against forged probes: %w", err)
	}
	return nil
}

// current lists the pods in the kernel's table, none if there is no table.
func (p *Probes) current() ([]netip.Addr, error) {
	l, err := nft.List(nil, p.Source.Host(nil))
	if err != nil || l == nil {
		return nil, err
	}
	var all []netip.Addr
	for _, set := range []string{capture.ProbesV4, capture.ProbesV6} {
		a, err := nft.Addrs(nil, p.Source.Host(nil), set)
		if err != nil {
			// Somebody changed the table so that the set is gone: there is nothing to keep.
			continue
		}
		all = append(all, a...)
	}
	return all, nil
}

// Add exempts the probes of a pod.
func (p *Probes) Add(pod ...netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pods == nil {
		p.pods, p.led = map[netip.Addr]bool{}, map[netip.Addr][]link.Rule{}
	}
	if err := errors.Join(p.leadLocked(pod), p.changeLocked(pod, nft.AddAddrs)); err != nil {
		return err
	}
	for _, a := range pod {
		p.pods[a] = true
	}
	return nil
}

// Delete ends the exemption.
func (p *Probes) Delete(pod ...netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range pod {
		delete(p.pods, a)
	}
	return errors.Join(p.changeLocked(pod, nft.DeleteAddrs), p.unleadLocked(pod))
}

// Prune ends the exemption of every pod that was not added since the agent started.
func (p *Probes) Prune() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	have, err := p.current()
	if err != nil {
		return err
	}
	return errors.Join(p.changeLocked(slices.DeleteFunc(have, func(a netip.Addr) bool { return p.pods[a] }), nft.DeleteAddrs), sweepRules(false))
}

// Remove takes the node's table away.
func (p *Probes) Remove() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(nft.Delete(nil, p.Source.Host(nil)), nft.Delete(nil, p.Source.Bridges()), sweepRules(true))
}

func (p *Probes) allLocked() []netip.Addr {
	var all []netip.Addr
	for a := range p.pods {
		all = append(all, a)
	}
	return all
}

func (p *Probes) changeLocked(pods []netip.Addr, f setFunc) error {
	var v4, v6 []netip.Addr
	for _, a := range pods {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	return errors.Join(
		f(nil, p.Source.Host(nil), capture.ProbesV4, v4...),
		f(nil, p.Source.Host(nil), capture.ProbesV6, v6...))
}

// setFunc is nft.AddAddrs or nft.DeleteAddrs.
type setFunc = func(*netns.Namespace, nft.Table, string, ...netip.Addr) error
