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

// find opens the network namespace that holds a pod's address, among those that a runtime keeps in a directory.
func find(dir string, ips []netip.Addr) (*netns.Namespace, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("network namespaces of pods: %w", err)
	}
	for _, e := range entries {
		ns, err := netns.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // not one, or gone meanwhile
		}
		if holds(ns, ips) {
			return ns, nil
		}
		ns.Close()
	}
	return nil, fmt.Errorf("no network namespace in %s holds %v", dir, ips)
}

func holds(ns *netns.Namespace, ips []netip.Addr) bool {
	have, err := link.Addrs(ns)
	if err != nil {
		return false // gone meanwhile
	}
	return slices.ContainsFunc(have, func(a link.Address) bool { return slices.Contains(ips, a.Prefix.Addr().Unmap()) })
}
