package state

import (
	"net/netip"
	"slices"
	"strings"
)

// index finds workloads and services by all their names.
type index struct {
	workloads map[string]*Workload
	services  map[string]*Service
	endpoints map[string][]endpoint // by service, sorted by uid
	byAddress several[address, *Workload]
	hosts     several[string, *Workload] // workloads that have a host name of their own
	byHost    several[string, *Service]
	byVIP     several[address, *Service]
	blocks    several[block, *Service] // addresses that are whole blocks
	lengths   []length                 // those of blocks, the longest first
}

type address struct {
	network string
	addr    netip.Addr
}

type block struct {
	network string
	prefix  netip.Prefix
}

// length is one that n blocks of a family have.
type length struct {
	v6   bool
	bits int
	n    int
}

// endpoint is a workload behind a service, which is Services[at].
type endpoint struct {
	w  *Workload
	at int32
}

func newIndex() index {
	return index{workloads: map[string]*Workload{}, services: map[string]*Service{}, endpoints: map[string][]endpoint{}}
}

func (x *index) addWorkload(w *Workload) {
	x.workloads[w.UID] = w
	if !w.HostNetwork { // else others share its addresses
		for _, a := range w.Addresses {
			x.byAddress.add(address{w.Network, a}, w)
		}
	}
	if w.Hostname != "" {
		x.hosts.add(w.Hostname, w)
	}
	for at, m := range w.Services {
		es := x.endpoints[m.Service]
		i, _ := findEndpoint(es, w.UID)
		x.endpoints[m.Service] = slices.Insert(es, i, endpoint{w, int32(at)})
	}
}

func (x *index) removeWorkload(uid string) {
	w := x.workloads[uid]
	if w == nil {
		return
	}
	delete(x.workloads, uid)
	x.hosts.drop(w.Hostname, w)
	for _, a := range w.Addresses {
		x.byAddress.drop(address{w.Network, a}, w)
	}
	for _, m := range w.Services {
		es := x.endpoints[m.Service]
		i, ok := findEndpoint(es, uid)
		switch {
		case !ok:
		case len(es) == 1:
			delete(x.endpoints, m.Service)
		default:
			x.endpoints[m.Service] = slices.Delete(es, i, i+1)
		}
	}
}

func findEndpoint(sorted []endpoint, uid string) (int, bool) {
	return slices.BinarySearchFunc(sorted, uid, func(e endpoint, uid string) int { return strings.Compare(e.w.UID, uid) })
}

func (x *index) addService(svc *Service) {
	x.services[svc.key] = svc
	x.byHost.add(svc.Hostname, svc)
	for _, v := range svc.Addresses {
		if v.Block.IsSingleIP() {
			x.byVIP.add(address{v.Network, v.Block.Addr()}, svc)
		} else {
			x.blocks.add(block{v.Network, v.Block}, svc)
			x.countLength(v.Block, 1)
		}
	}
}

func (x *index) removeService(key string) {
	svc := x.services[key]
	if svc == nil {
		return
	}
	delete(x.services, key)
	x.byHost.drop(svc.Hostname, svc)
	for _, v := range svc.Addresses {
		if v.Block.IsSingleIP() {
			x.byVIP.drop(address{v.Network, v.Block.Addr()}, svc)
		} else {
			x.blocks.drop(block{v.Network, v.Block}, svc)
			x.countLength(v.Block, -1)
		}
	}
}

func (x *index) countLength(p netip.Prefix, n int) {
	want := length{v6: p.Addr().Is6(), bits: p.Bits()}
	i, found := slices.BinarySearchFunc(x.lengths, want, func(a, b length) int {
		if a.v6 != b.v6 {
			return map[bool]int{false: -1, true: 1}[a.v6]
		}
		return b.bits - a.bits
	})
	if !found {
		x.lengths = slices.Insert(x.lengths, i, want)
	}
	if x.lengths[i].n += n; x.lengths[i].n <= 0 {
		x.lengths = slices.Delete(x.lengths, i, i+1)
	}
}

// workload is that of an address. A pod takes precedence over an entry that names its address; the newest over a pod
// that is going away.
func (x *index) workload(a address) *Workload {
	var last, pod *Workload
	for w := range x.byAddress.all(a) {
		if last = w; strings.Contains(w.UID, "//Pod/") {
			pod = w
		}
	}
	if pod != nil {
		return pod
	}
	return last
}

// gateway finds what a gateway's name or address stands for: a service or a workload.
func (x *index) gateway(gw *Gateway) (*Service, *Workload) {
	if gw.Hostname != "" {
		if svc := x.services[gw.key]; svc != nil {
			return svc, nil
		}
		for w := range x.hosts.all(gw.Hostname) {
			if w.Namespace == gw.Namespace {
				return nil, w
			}
		}
		return nil, nil
	}
	at := address{gw.Network, gw.Addr}
	for svc := range x.byVIP.all(at) {
		return svc, nil
	}
	return nil, x.workload(at)
}

// is reports whether a workload is (part of) a gateway.
func (x *index) is(w *Workload, gw *Gateway) bool {
	svc, at := x.gateway(gw)
	if svc != nil {
		_, in := findEndpoint(x.endpoints[svc.key], w.UID)
		return in
	}
	return at != nil && at.UID == w.UID
}

// size counts the entries, which all go with what they are of.
func (x *index) size() int {
	n := x.byAddress.len() + x.hosts.len() + x.byHost.len() + x.byVIP.len() + x.blocks.len()
	return n + len(x.workloads) + len(x.services) + len(x.endpoints) + len(x.lengths)
}
