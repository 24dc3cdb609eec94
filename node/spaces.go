package node

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
)

// spaces is find for many pods at once, as when their namespace joins the mesh: what the network namespaces hold is read once for
// all of them, and the one that is found is looked at again.
type spaces struct {
	dir string

	mu    sync.Mutex // guards below
	read  time.Time
	names []string
	holds map[netip.Addr][]string // names of the namespaces that have an address
}

// fresh is how long what was read is believed. A namespace that came or went meanwhile is noticed.
const fresh = 500 * time.Millisecond

// find opens the network namespace that holds a pod's addresses; see the function find, which has the last word on everything
// that is not plain.
func (s *spaces) find(ips []netip.Addr) (*netns.Namespace, error) {
	if name := s.only(ips); name != "" {
		ns, err := netns.Open(filepath.Join(s.dir, name))
		if err == nil && holds(ns, ips) {
			return ns, nil
		}
		if err == nil {
			ns.Close()
		}
	}
	return find(s.dir, ips)
}

// only is the one namespace that has any of the addresses, "" if there is none or there are more.
func (s *spaces) only(ips []netip.Addr) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := entries(s.dir)
	if time.Since(s.read) > fresh || !slices.Equal(names, s.names) {
		s.readLocked(names)
	}
	found := ""
	for _, ip := range ips {
		for _, name := range s.holds[ip] {
			if found != "" && found != name {
				return ""
			}
			found = name
		}
	}
	return found
}

func (s *spaces) readLocked(names []string) {
	s.read, s.names, s.holds = time.Now(), names, map[netip.Addr][]string{}
	for _, name := range names {
		ns, err := netns.Open(filepath.Join(s.dir, name))
		if err != nil {
			continue // not one, or gone meanwhile
		}
		all, err := link.Addrs(ns)
		ns.Close()
		if err != nil {
			continue
		}
		for _, a := range all {
			ip := a.Prefix.Addr()
			s.holds[ip] = append(s.holds[ip], name)
		}
	}
}

// entries are the names in a directory; none if it cannot be read, which find then says.
func entries(dir string) []string {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names
}
