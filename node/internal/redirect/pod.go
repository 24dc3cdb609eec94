// Package redirect puts the decided rules into the kernel, finds what differs there and takes them out.
package redirect

import (
	"errors"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/linux/nlsock"
	"github.com/ambit-mesh/ambit/node/internal/capture"
)

// V6 reports whether a namespace has IPv6: the kernel may not know it, or it may be turned off there. Then no packet of it can
// pass. The packet filter's rules are for both families always; what depends on this is the routing, which then would not be taken.
func V6(ns *netns.Namespace) (bool, error) {
	all, err := link.IPs(ns)
	return slices.ContainsFunc(all, netip.Addr.Is6), err
}

// Enter makes everything that follows, until release, one visit to the namespace.
func Enter(ns *netns.Namespace) (release func(), err error) {
	return nlsock.Open(ns, unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER, unix.NETLINK_INET_DIAG)
}

// Plan is the rules of a pod ready for the kernel, the same for all pods of the same options.
type Plan struct {
	policy link.Policy
	tables *nft.Program
}

// NewPlan makes the plan for rules.
func NewPlan(r capture.Rules) (*Plan, error) {
	tables, err := nft.Compile(r.Tables...)
	return &Plan{policy: link.Policy{Rules: r.Marks, Routes: r.Routes}, tables: tables}, err
}

// Apply makes a pod's namespace hold exactly the rules. It may be repeated. The policy routes come first:
// once traffic is redirected everything that redirection needs is there. It gives the generation of the tables as Differences
// does, 0 if it is not known.
func (p *Plan) Apply(ns *netns.Namespace) (nft.Generation, error) {
	if err := p.policy.Ensure(ns); err != nil {
		return 0, err
	}
	return p.tables.Apply(ns)
}

// Differences lists how a pod's namespace differs from the rules; nil if it does not. The tables are not read again if their
// generation is still the one in which they were right. It gives the present one.
func (p *Plan) Differences(ns *netns.Namespace, right nft.Generation) (d []string, now nft.Generation, err error) {
	if now, err = nft.Current(ns); err != nil {
		return nil, 0, err
	}
	if right == 0 || now != right {
		if d, err = p.tables.Differences(ns); err != nil {
			return nil, 0, err
		}
	}
	missing, err := p.policy.Missing(ns)
	return append(d, missing...), now, err
}

// Captured reports whether a namespace holds any of the plan's tables, whatever is in them. Every plan has the same.
func (p *Plan) Captured(ns *netns.Namespace) (bool, error) { return p.tables.There(ns) }

// Apply makes a plan and applies it.
func Apply(ns *netns.Namespace, r capture.Rules) error {
	p, err := NewPlan(r)
	if err != nil {
		return err
	}
	_, err = p.Apply(ns)
	return err
}

// Differences makes a plan and lists all that differs from it.
func Differences(ns *netns.Namespace, r capture.Rules) ([]string, error) {
	p, err := NewPlan(r)
	if err != nil {
		return nil, err
	}
	d, _, err := p.Differences(ns, 0)
	return d, err
}

// Captured reports whether a namespace holds any of a captured pod's tables.
func Captured(ns *netns.Namespace) (bool, error) {
	p, err := NewPlan(capture.For(capture.Pod{}))
	if err != nil {
		return false, err
	}
	return p.Captured(ns)
}

// Relax stops the redirection of new connections. Those that are redirected already go on: the kernel translates them only
// as long as the empty chains are there.
func Relax(ns *netns.Namespace) error { return nft.Apply(ns, capture.Relaxed()) }

// Remove takes everything out that Apply put in, whatever the pod's options were.
func Remove(ns *netns.Namespace) error {
	_, err := os.Stat("/proc/sys/net/ipv6")
	r := capture.For(capture.Pod{V6: err == nil})
	errs := []error{nft.Delete(ns, r.Tables...)}
	for _, m := range r.Marks {
		errs = append(errs, link.DeleteRule(ns, m))
	}
	for _, o := range r.Routes {
		errs = append(errs, link.DeleteRoute(ns, o))
	}
	return errors.Join(errs...)
}
