package node

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/node/internal/objects"
	"github.com/ambit-mesh/ambit/node/internal/procns"
)

// spaces finds the network namespaces of pods: by a pod's processes, where the node's are shown, for a cgroup names the pod; or
// among those that the runtime keeps in a directory, by the pod's addresses. There, what the namespaces hold is read once for many
// pods at once, as when their namespace joins the mesh, and the one that is found is looked at again.
type spaces struct {
	dir   string
	procs *procns.Finder // nil where the node's processes are not shown
	known func(uid string) bool

	mu    sync.Mutex // guards below
	read  time.Time
	names []string
	holds map[netip.Addr][]string // names of the namespaces that have an address
}

// fresh is how long what was read is believed. A namespace that came or went meanwhile is noticed.
const fresh = 500 * time.Millisecond

// find opens the network namespace of a pod, which holds its addresses.
func (s *spaces) find(pod objects.Pod) (*netns.Namespace, error) {
	if s.procs == nil {
		return s.byAddress(pod.IPs)
	}
	found, err := s.byProcess(pod)
	if found != nil || errors.Is(err, errSeveral) {
		return found, err
	}
	kept, none := s.byAddress(pod.IPs)
	if none != nil {
		return nil, errors.Join(err, none)
	}
	return kept, nil
}

// errSeveral is about a pod whose namespace is not known, though it is there.
var errSeveral = errors.New("it is not known which is the pod's")

// byProcess is nil if no process of the pod is in a namespace with its addresses: a runtime may keep one without a process. An application that
// makes itself another namespace with the same addresses does not get the pod's place: the runtime's own comes first.
func (s *spaces) byProcess(pod objects.Pod) (*netns.Namespace, error) {
	all, err := s.procs.Of(pod.RuntimeUID(), s.known)
	if err != nil {
		return nil, err
	}
	var found []*netns.Namespace
	for _, ns := range all {
		if holds(ns, pod.IPs) {
			found = append(found, ns)
		} else {
			ns.Close()
		}
	}
	if len(found) > 1 && s.dir != "" {
		found = slices.DeleteFunc(found, func(ns *netns.Namespace) bool {
			kept := false
			_ = each(s.dir, func(o *netns.Namespace) { kept = kept || o.ID() == ns.ID() }) // without the directory none is
			if !kept {
				ns.Close()
			}
			return !kept
		})
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	for _, ns := range found {
		ns.Close()
	}
	return nil, fmt.Errorf("processes of the pod are in %d network namespaces that hold %v: %w", len(found), pod.IPs, errSeveral)
}

// byAddress opens the namespace of the directory that holds a pod's addresses; see the function find, which has the last word on
// everything that is not plain.
func (s *spaces) byAddress(ips []netip.Addr) (*netns.Namespace, error) {
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

// each shows f the network namespaces of all pods; one may come twice.
func (s *spaces) each(f func(*netns.Namespace)) error {
	var failed []error
	if s.procs != nil {
		failed = append(failed, s.procs.Each(f))
	}
	if err := each(s.dir, f); err != nil && (s.procs == nil || !errors.Is(err, os.ErrNotExist)) {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
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
		all, err := link.IPs(ns)
		ns.Close()
		if err != nil {
			continue
		}
		for _, ip := range all {
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
