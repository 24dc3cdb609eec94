// Package redirect puts the decided rules into the kernel, finds what differs there and takes them out.
package redirect

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/node/internal/capture"
)

// V6 reports whether a namespace has IPv6: the kernel may not know it, or it may be turned off there. Then no packet of it can
// pass. The packet filter's rules are for both families always; what depends on this is the routing, which then would not be taken.
func V6(ns *netns.Namespace) (bool, error) {
	all, err := link.Addrs(ns)
	return slices.ContainsFunc(all, func(a link.Address) bool { return a.Prefix.Addr().Is6() }), err
}

// Apply makes a pod's namespace hold exactly the rules. It may be repeated. The policy routes come first:
// once traffic is redirected everything that redirection needs is there.
func Apply(ns *netns.Namespace, r capture.Rules) error {
	for _, o := range r.Routes {
		if err := link.AddRoute(ns, o); err != nil {
			return err
		}
	}
	for _, m := range r.Marks {
		if err := link.AddRule(ns, m); err != nil {
			return err
		}
	}
	return nft.Apply(ns, r.Tables...)
}

// Differences lists how a pod's namespace differs from the rules; nil if it does not.
func Differences(ns *netns.Namespace, r capture.Rules) ([]string, error) {
	var d []string
	for _, t := range r.Tables {
		more, err := nft.Compare(ns, t)
		if err != nil {
			return nil, err
		}
		for _, line := range more {
			d = append(d, t.Name+": "+line)
		}
	}
	for _, m := range r.Marks {
		there, err := link.HasRule(ns, m)
		if err != nil {
			return nil, err
		}
		if !there {
			d = append(d, fmt.Sprintf("missing: rule %s", m))
		}
	}
	for _, o := range r.Routes {
		there, err := link.HasRoute(ns, o)
		if err != nil {
			return nil, err
		}
		if !there {
			d = append(d, fmt.Sprintf("missing: route %s", o))
		}
	}
	return d, nil
}

// Captured reports whether a namespace holds any of a captured pod's tables.
func Captured(ns *netns.Namespace) (bool, error) {
	for _, t := range capture.For(capture.Pod{}).Tables {
		l, err := nft.List(ns, t)
		if err != nil || l != nil {
			return l != nil, err
		}
	}
	return false, nil
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
