package node

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
)

// find opens the network namespace that holds a pod's addresses, among those that a runtime keeps in a directory. A pod
// with the right to change its addresses may take another's: where two hold them, none is believed.
func find(dir string, ips []netip.Addr) (*netns.Namespace, error) {
	var found []*netns.Namespace
	err := each(dir, func(ns *netns.Namespace) {
		if !holds(ns, ips) || slices.ContainsFunc(found, func(o *netns.Namespace) bool { return o.ID() == ns.ID() }) {
			return
		}
		if own, err := ns.Dup(); err == nil {
			found = append(found, own)
		}
	})
	switch {
	case err != nil:
	case len(found) == 0:
		err = fmt.Errorf("no network namespace in %s holds %v", dir, ips)
	case len(found) > 1:
		err = fmt.Errorf("%d network namespaces in %s hold %v: it is not known which is the pod's", len(found), dir, ips)
	default:
		return found[0], nil
	}
	for _, ns := range found {
		ns.Close()
	}
	return nil, err
}

// each shows f every network namespace of a directory.
func each(dir string, f func(*netns.Namespace)) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("network namespaces of pods: %w", err)
	}
	for _, e := range entries {
		ns, err := netns.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // not one, or gone meanwhile
		}
		f(ns)
		ns.Close()
	}
	return nil
}

// holds reports whether a namespace has every one of the addresses.
func holds(ns *netns.Namespace, ips []netip.Addr) bool {
	have, err := link.IPs(ns)
	if err != nil {
		return false // gone meanwhile
	}
	for _, ip := range ips {
		if !slices.Contains(have, ip) {
			return false
		}
	}
	return true
}
