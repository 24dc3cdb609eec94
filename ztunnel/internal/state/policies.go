package state

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/authz"
)

// Policies is a batch of policies to take in, and names of those that are gone.
type Policies struct {
	Set []*authorization.Authorization
	// Names are the resources' names, in the order of Set. One that is absent or empty is "namespace/name".
	Names  []string
	Remove []string
}

// ApplyPolicies takes in a batch. The error is a Rejected; a policy that is not understood is kept, because it denies.
func (s *Store) ApplyPolicies(b Policies) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.notifyLocked()
	for _, name := range b.Remove {
		s.policies.remove(name)
	}
	bad := &Rejected{}
	for i, a := range b.Set {
		p := authz.Compile(a)
		name := p.Key()
		if i < len(b.Names) && b.Names[i] != "" {
			name = b.Names[i]
		}
		s.policies.remove(name)
		s.policies.add(name, p)
		if p.Problem != "" {
			bad.add(name, fmt.Errorf("policy %s denies, because it is not understood: %s", p.Key(), p.Problem))
		}
	}
	s.policies.forgetAll()
	return bad.orNil()
}

// PoliciesOf collects the policies that apply to a workload: the mesh's, its namespace's and those it names. A
// workload that is not understood may name more than we see: nothing is let into it.
func (s *Store) PoliciesOf(w *Workload) *authz.Policies {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.policies.of(w)
}

// policies are those that were received.
type policies struct {
	byName   map[string]*authz.Policy   // by name of the resource
	applying map[string][]*authz.Policy // those that need not be named, by namespace; the mesh's under ""

	mu     sync.Mutex // guards below, beside the store's lock
	gather map[*Workload]*authz.Policies
}

func newPolicies() policies {
	return policies{byName: map[string]*authz.Policy{}, applying: map[string][]*authz.Policy{}, gather: map[*Workload]*authz.Policies{}}
}

func (ps *policies) add(name string, p *authz.Policy) {
	ps.byName[name] = p
	if where, ok := unnamed(p); ok {
		ps.applying[where] = append(ps.applying[where], p)
	}
}

func (ps *policies) remove(name string) {
	p := ps.byName[name]
	if p == nil {
		return
	}
	ps.forgetAll()
	delete(ps.byName, name)
	where, ok := unnamed(p)
	if !ok {
		return
	}
	rest := slices.DeleteFunc(slices.Clone(ps.applying[where]), func(x *authz.Policy) bool { return x == p })
	if len(rest) == 0 {
		delete(ps.applying, where)
	} else {
		ps.applying[where] = rest
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

func (ps *policies) all() []*authz.Policy {
	out := make([]*authz.Policy, 0, len(ps.byName))
	for _, p := range ps.byName {
		out = append(out, p)
	}
	return out
}

// forget drops what of gathers for a workload that goes away; forgetAll does when policies change.
func (ps *policies) forget(w *Workload) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.gather, w)
}

func (ps *policies) forgetAll() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	clear(ps.gather)
}

// maxGathered bounds what is remembered: a node has a few hundred pods, and only theirs are asked for.
const maxGathered = 1024

// of gathers the policies of a workload, once.
func (ps *policies) of(w *Workload) *authz.Policies {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if known := ps.gather[w]; known != nil {
		return known
	}
	if len(ps.gather) >= maxGathered {
		clear(ps.gather)
	}
	out := ps.collect(w)
	ps.gather[w] = out
	return out
}

func (ps *policies) collect(w *Workload) *authz.Policies {
	var apply []*authz.Policy
	var missing []string
	if w.Problem != "" {
		apply = append(apply, &authz.Policy{Namespace: w.Namespace, Name: w.Name, Problem: "workload " + w.UID + " is not understood: " + w.Problem})
	}
	for _, name := range w.Policies {
		if p := ps.byName[name]; p != nil {
			if !slices.Contains(apply, p) {
				apply = append(apply, p)
			}
		} else {
			missing = append(missing, name)
		}
	}
	for _, where := range []string{"", w.Namespace} {
		for _, p := range ps.applying[where] {
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
