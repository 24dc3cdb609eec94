package certs

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/identity"
)

// anchors are the roots of one trust domain: those that vouch for a certificate we hold, and those added from outside.
// While authorities rotate, the old root stays as long as any certificate of ours still hangs on it.
type anchors struct {
	certs  map[string]*x509.Certificate // by raw bytes
	added  map[string]bool              // by AddRoots
	latest map[string]bool              // of the last answer
	pool   *x509.CertPool
}

func (a *anchors) rebuild() {
	a.pool = x509.NewCertPool()
	for _, c := range a.certs {
		a.pool.AddCert(c)
	}
}

// Roots implements svid.Roots.
func (m *Manager) Roots(trustDomain string) (*x509.CertPool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.roots[trustDomain]
	if !ok || len(a.certs) == 0 {
		return nil, fmt.Errorf("no roots of trust domain %s are known yet", trustDomain)
	}
	return a.pool, nil
}

// AddRoots trusts further roots for a trust domain, such as those of a root file, in place of those added before.
func (m *Manager) AddRoots(trustDomain string, roots ...*x509.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.anchorsLocked(trustDomain)
	a.added = map[string]bool{}
	for _, c := range roots {
		a.certs[string(c.Raw)] = c
		a.added[string(c.Raw)] = true
	}
	m.pruneLocked()
	a.rebuild()
}

func (m *Manager) anchorsLocked(td string) *anchors {
	a, ok := m.roots[td]
	if !ok {
		a = &anchors{certs: map[string]*x509.Certificate{}, added: map[string]bool{}}
		m.roots[td] = a
	}
	return a
}

// answeredLocked takes in the roots of an answer.
func (m *Manager) answeredLocked(td string, roots []*x509.Certificate) {
	a := m.anchorsLocked(td)
	a.latest = map[string]bool{}
	for _, c := range roots {
		a.latest[string(c.Raw)] = true
		a.certs[string(c.Raw)] = c
	}
	a.rebuild()
}

// pruneLocked drops roots that no certificate of ours hangs on and nobody added. That of the last answer stays: a proxy
// whose pods have all left must still know its mesh when the next one comes.
func (m *Manager) pruneLocked() {
	used := map[string]bool{}
	for _, e := range m.entries {
		for _, c := range e.roots {
			used[string(c.Raw)] = true
		}
	}
	for _, a := range m.roots {
		before := len(a.certs)
		for raw := range a.certs {
			if !used[raw] && !a.added[raw] && !a.latest[raw] {
				delete(a.certs, raw)
			}
		}
		if len(a.certs) != before {
			a.rebuild()
		}
	}
}

// State of a certificate, in the words of ztunnel's config dump.
type State string

// The states.
const (
	Available    State = "Available"
	Initializing State = "Initializing"
	Unavailable  State = "Unavailable"
)

// Entry is one identity for dumps. It holds no key.
type Entry struct {
	ID    identity.ID
	State State
	// Error is the last failure, if the last request failed.
	Error string
	Chain []*x509.Certificate
	Roots []*x509.Certificate
}

// Entries lists every wanted identity, sorted.
func (m *Manager) Entries() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Entry, 0, len(m.entries))
	for _, e := range slices.Collect(maps.Values(m.entries)) {
		x := Entry{ID: e.id, State: Initializing, Roots: e.roots}
		if e.lastErr != nil {
			x.Error, x.State = e.lastErr.Error(), Unavailable
		}
		if e.issued != nil {
			x.Chain, x.State = e.issued.Chain, Available
			if time.Now().After(e.issued.Chain[0].NotAfter) {
				x.State = Unavailable
			}
		}
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return all
}
