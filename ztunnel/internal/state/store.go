package state

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/authz"
)

// Config of a Store.
type Config struct {
	// Network that this proxy is in. Default: the network without a name.
	Network string
	// TrustDomain of workloads that name none.
	TrustDomain string
	// Preferred namespace, whose services come second to those of the client's own where several share a name or an
	// address. Default: none.
	Preferred string
	// Pick gives a random number below n, which is at least 1.
	Pick func(n uint64) uint64
}

// Store holds what the control plane has told. Values in it are immutable.
type Store struct {
	conf Config

	mu        sync.RWMutex // guards below
	workloads map[string]*Workload
	byAddress map[address][]*Workload
	services  map[string]*Service
	byHost    map[string][]*Service
	hosts     map[string][]*Workload // workloads that have a host name of their own
	byVIP     map[address][]*Service
	blocks    map[netip.Prefix][]*Service // addresses that are whole blocks
	endpoints map[string][]*Workload      // by service, sorted by uid
	policies  map[string]*authz.Policy    // by name of the resource
	applying  map[string][]*authz.Policy  // those that need not be named, by namespace; the mesh's under ""
	changed   chan struct{}               // closed at the next change
}

type address struct {
	network string
	addr    netip.Addr
}

// New makes an empty store.
func New(conf Config) *Store {
	return &Store{
		conf: conf, workloads: map[string]*Workload{}, byAddress: map[address][]*Workload{}, services: map[string]*Service{},
		byHost: map[string][]*Service{}, hosts: map[string][]*Workload{},
		byVIP: map[address][]*Service{}, blocks: map[netip.Prefix][]*Service{}, endpoints: map[string][]*Workload{},
		policies: map[string]*authz.Policy{}, applying: map[string][]*authz.Policy{}, changed: make(chan struct{}),
	}
}

// Addresses is a batch of workloads and services to take in, and names of those that are gone.
type Addresses struct {
	Set    []*workload.Address
	Remove []string
}

// ApplyAddresses takes in a batch. Values that are not understood are left out, and said in the error; the rest is
// applied.
func (s *Store) ApplyAddresses(b Addresses) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.notifyLocked()
	for _, name := range b.Remove {
		s.removeWorkloadLocked(name)
		s.removeServiceLocked(name)
	}
	var errs []error
	for _, a := range b.Set {
		switch x := a.GetType().(type) {
		case *workload.Address_Workload:
			w, err := parseWorkload(x.Workload, s.conf.TrustDomain)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			s.removeWorkloadLocked(w.UID)
			s.addWorkloadLocked(w)
		case *workload.Address_Service:
			svc, err := parseService(x.Service)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			s.removeServiceLocked(svc.Key())
			s.addServiceLocked(svc)
		default:
			errs = append(errs, errors.New("an address that is neither workload nor service"))
		}
	}
	return errors.Join(errs...)
}

// Policies is a batch of policies to take in, and names of those that are gone.
type Policies struct {
	Set []*authorization.Authorization
	// Names are the resources' names, in the order of Set. One that is absent or empty is "namespace/name".
	Names  []string
	Remove []string
}

// ApplyPolicies takes in a batch. A policy that is not understood is kept, because it denies.
func (s *Store) ApplyPolicies(b Policies) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.notifyLocked()
	for _, name := range b.Remove {
		s.removePolicyLocked(name)
	}
	var errs []error
	for i, a := range b.Set {
		p := authz.Compile(a)
		name := p.Key()
		if i < len(b.Names) && b.Names[i] != "" {
			name = b.Names[i]
		}
		s.removePolicyLocked(name)
		s.policies[name] = p
		if where, ok := unnamed(p); ok {
			s.applying[where] = append(s.applying[where], p)
		}
		if p.Problem != "" {
			errs = append(errs, fmt.Errorf("policy %s denies, because it is not understood: %s", p.Key(), p.Problem))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) removePolicyLocked(key string) {
	p := s.policies[key]
	if p == nil {
		return
	}
	delete(s.policies, key)
	if where, ok := unnamed(p); ok {
		drop(s.applying, where, p)
	}
}

// unnamed tells where a policy applies without being named by workloads: in a namespace, or everywhere ("").
func unnamed(p *authz.Policy) (namespace string, ok bool) {
	switch p.Scope {
	case authz.Mesh:
		return "", true
	case authz.Namespace:
		return p.Namespace, true
	}
	return "", false
}

func (s *Store) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Changed is closed at the next change.
func (s *Store) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

func (s *Store) addWorkloadLocked(w *Workload) {
	s.workloads[w.UID] = w
	if !w.HostNetwork {
		for _, a := range w.Addresses {
			k := address{w.Network, a}
			s.byAddress[k] = append(s.byAddress[k], w)
		}
	}
	if w.Hostname != "" {
		s.hosts[w.Hostname] = append(s.hosts[w.Hostname], w)
	}
	for key := range w.Services {
		i, _ := findEndpoint(s.endpoints[key], w.UID)
		s.endpoints[key] = slices.Insert(s.endpoints[key], i, w)
	}
}

func (s *Store) removeWorkloadLocked(uid string) {
	w := s.workloads[uid]
	if w == nil {
		return
	}
	delete(s.workloads, uid)
	drop(s.hosts, w.Hostname, w)
	for _, a := range w.Addresses {
		drop(s.byAddress, address{w.Network, a}, w)
	}
	for key := range w.Services {
		if i, ok := findEndpoint(s.endpoints[key], uid); ok {
			s.endpoints[key] = slices.Delete(s.endpoints[key], i, i+1)
		}
		if len(s.endpoints[key]) == 0 {
			delete(s.endpoints, key)
		}
	}
}

func findEndpoint(sorted []*Workload, uid string) (int, bool) {
	return slices.BinarySearchFunc(sorted, uid, func(w *Workload, uid string) int { return strings.Compare(w.UID, uid) })
}

func (s *Store) addServiceLocked(svc *Service) {
	s.services[svc.Key()] = svc
	s.byHost[svc.Hostname] = append(s.byHost[svc.Hostname], svc)
	for _, v := range svc.Addresses {
		if v.Block.IsSingleIP() {
			k := address{v.Network, v.Block.Addr()}
			s.byVIP[k] = append(s.byVIP[k], svc)
		} else {
			s.blocks[v.Block] = append(s.blocks[v.Block], svc)
		}
	}
}

func (s *Store) removeServiceLocked(key string) {
	svc := s.services[key]
	if svc == nil {
		return
	}
	delete(s.services, key)
	drop(s.byHost, svc.Hostname, svc)
	for _, v := range svc.Addresses {
		drop(s.byVIP, address{v.Network, v.Block.Addr()}, svc)
		drop(s.blocks, v.Block, svc)
	}
}

// drop takes v out of the list of k and leaves no empty list.
func drop[K comparable, V comparable](m map[K][]V, k K, v V) {
	rest := slices.DeleteFunc(slices.Clone(m[k]), func(x V) bool { return x == v })
	if len(rest) == 0 {
		delete(m, k)
	} else {
		m[k] = rest
	}
}

// Workload is the workload of an address of our network; nil if there is none.
func (s *Store) Workload(a netip.Addr) *Workload {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.workloadLocked(a.Unmap())
}

func (s *Store) workloadLocked(a netip.Addr) *Workload {
	ws := s.byAddress[address{s.conf.Network, a}]
	if len(ws) == 0 {
		return nil
	}
	// A pod takes precedence over an entry that names its address; the newest over a pod that is going away.
	for i := len(ws) - 1; i >= 0; i-- {
		if strings.Contains(ws[i].UID, "//Pod/") {
			return ws[i]
		}
	}
	return ws[len(ws)-1]
}

// Pod is the workload of a pod; nil if it is not known yet.
func (s *Store) Pod(cluster, namespace, name string) *Workload {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.workloads[cluster+"//Pod/"+namespace+"/"+name]
}

// PoliciesOf collects the policies that apply to a workload: the mesh's, its namespace's and those it names.
func (s *Store) PoliciesOf(w *Workload) *authz.Policies {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var apply []*authz.Policy
	var missing []string
	for _, key := range w.Policies {
		if p := s.policies[key]; p != nil {
			if !slices.Contains(apply, p) {
				apply = append(apply, p)
			}
		} else {
			missing = append(missing, key)
		}
	}
	for _, where := range []string{"", w.Namespace} {
		for _, p := range s.applying[where] {
			if !slices.Contains(apply, p) {
				apply = append(apply, p)
			}
		}
		if w.Namespace == "" {
			break
		}
	}
	slices.SortFunc(apply, func(a, b *authz.Policy) int { return strings.Compare(a.Key(), b.Key()) })
	return authz.Collect(apply, missing...)
}

// Snapshot is everything at one moment, for dumps; each list is sorted.
type Snapshot struct {
	Workloads []*Workload
	Services  []*Service
	Policies  []*authz.Policy
	Endpoints map[string][]string // uids, by service
}

// Snapshot copies the lists; the values are shared.
func (s *Store) Snapshot() Snapshot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := Snapshot{Endpoints: map[string][]string{}}
	for _, w := range s.workloads {
		out.Workloads = append(out.Workloads, w)
	}
	for _, svc := range s.services {
		out.Services = append(out.Services, svc)
	}
	for _, p := range s.policies {
		out.Policies = append(out.Policies, p)
	}
	for key, ws := range s.endpoints {
		for _, w := range ws {
			out.Endpoints[key] = append(out.Endpoints[key], w.UID)
		}
	}
	slices.SortFunc(out.Workloads, func(a, b *Workload) int { return strings.Compare(a.UID, b.UID) })
	slices.SortFunc(out.Services, func(a, b *Service) int { return strings.Compare(a.Key(), b.Key()) })
	slices.SortFunc(out.Policies, func(a, b *authz.Policy) int { return strings.Compare(a.Key(), b.Key()) })
	return out
}
