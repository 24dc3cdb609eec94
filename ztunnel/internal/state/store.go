package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/authz"
)

// Config of a Store.
type Config struct {
	// Network that this proxy is in. Default: the network without a name.
	Network string
	// TrustDomain of workloads that name none.
	TrustDomain string
	// Preferred namespace, whose services come after the canonical one where several share a name or an address.
	// Default: none.
	Preferred string
	// RegistryOnly refuses connections to what the mesh does not know. Default: they pass through.
	RegistryOnly bool
	// Pick gives a random number below n, which is at least 1.
	Pick func(n uint64) uint64
}

// Store holds what the control plane has told. Values in it are immutable.
type Store struct {
	conf Config

	mu       sync.RWMutex // guards below
	parser   parser
	index    index
	policies policies
	changed  chan struct{} // closed at the next change
}

// New makes an empty store.
func New(conf Config) *Store {
	return &Store{
		conf: conf, parser: parser{trustDomain: conf.TrustDomain}, index: newIndex(), policies: newPolicies(), changed: make(chan struct{}),
	}
}

// Addresses is a batch of workloads and services to take in, and names of those that are gone.
type Addresses struct {
	Set    []*workload.Address
	Remove []string
}

// Rejected are the resources of a batch that were not understood. What we know of them is kept, and refuses.
type Rejected struct {
	Names []string
	errs  []error
}

func (r *Rejected) Error() string { return errors.Join(r.errs...).Error() }

func (r *Rejected) add(name string, err error) {
	r.Names = append(r.Names, name)
	r.errs = append(r.errs, err)
}

func (r *Rejected) orNil() error {
	if len(r.errs) == 0 {
		return nil
	}
	return r
}

// ApplyAddresses takes in a batch. The error is a Rejected; the rest is applied.
func (s *Store) ApplyAddresses(b Addresses) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.notifyLocked()
	for _, name := range b.Remove {
		s.policies.forget(s.index.workloads[name])
		s.index.removeWorkload(name)
		s.index.removeService(name)
	}
	bad := &Rejected{}
	for _, a := range b.Set {
		switch x := a.GetType().(type) {
		case *workload.Address_Workload:
			w, err := s.parser.workload(x.Workload)
			if err != nil {
				bad.add("", err)
				continue
			}
			if w.Problem != "" {
				bad.add(w.UID, fmt.Errorf("workload %s is refused: %s", w.UID, w.Problem))
			}
			s.policies.forget(s.index.workloads[w.UID])
			s.index.removeWorkload(w.UID)
			s.index.addWorkload(w)
		case *workload.Address_Service:
			svc, err := s.parser.service(x.Service)
			if err != nil {
				bad.add("", err)
				continue
			}
			if svc.Problem != "" {
				bad.add(svc.key, fmt.Errorf("service %s is refused: %s", svc.key, svc.Problem))
			}
			s.index.removeService(svc.key)
			s.index.addService(svc)
		default:
			bad.add("", errors.New("an address that is neither workload nor service"))
		}
	}
	return bad.orNil()
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

// Snapshot is everything at one moment, for dumps; each list is sorted.
type Snapshot struct {
	Workloads []*Workload
	Services  []*Service
	Policies  []*authz.Policy
	Endpoints map[string][]*Workload // by service, sorted by uid
}

// Snapshot copies the lists; the values are shared.
func (s *Store) Snapshot() Snapshot {
	s.mu.RLock()
	out := Snapshot{
		Workloads: make([]*Workload, 0, len(s.index.workloads)), Services: make([]*Service, 0, len(s.index.services)),
		Endpoints: make(map[string][]*Workload, len(s.index.endpoints)), Policies: s.policies.all(),
	}
	for _, w := range s.index.workloads {
		out.Workloads = append(out.Workloads, w)
	}
	for _, svc := range s.index.services {
		out.Services = append(out.Services, svc)
	}
	for key, es := range s.index.endpoints {
		for _, e := range es {
			out.Endpoints[key] = append(out.Endpoints[key], e.w)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(out.Workloads, func(a, b *Workload) int { return strings.Compare(a.UID, b.UID) })
	slices.SortFunc(out.Services, func(a, b *Service) int { return strings.Compare(a.key, b.key) })
	slices.SortFunc(out.Policies, func(a, b *authz.Policy) int { return strings.Compare(a.Key(), b.Key()) })
	return out
}

// Pairs are pairs of names.
type Pairs map[[2]string]struct{}

// Has reports whether a pair is among them.
func (p Pairs) Has(a, b string) bool { _, ok := p[[2]string{a, b}]; return ok }

// Owners are what workloads are instances of, as namespace and name, and their canonical services, as name and revision.
func (s *Store) Owners() (owners, canonical Pairs) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	owners, canonical = Pairs{}, Pairs{}
	for _, w := range s.index.workloads {
		owners[[2]string{w.Namespace, w.Owner}] = struct{}{}
		canonical[[2]string{w.CanonicalName, w.CanonicalRevision}] = struct{}{}
	}
	return owners, canonical
}
