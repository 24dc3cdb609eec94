package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/crl"
	"github.com/ambit-mesh/ambit/identity/svid"
)

// Retry after a failed request doubles between these (FEATURES 1.4).
const (
	retryMin = time.Second
	retryMax = 150 * time.Second
)

// requestTimeout bounds one request to the authority.
const requestTimeout = 20 * time.Second

// Config of a Manager.
type Config struct {
	Authority Authority
	// Parallel is how many requests run at once. Default 4.
	Parallel int
	// RootFile is a PEM file whose certificates are roots of TrustDomain too, read again every RootFileEvery (default
	// 10s). A mesh that changes its root publishes the new one there before anything is signed by it, and the old one
	// until nothing is. Empty means that only what the authority answers is trusted.
	RootFile, TrustDomain string
	RootFileEvery         time.Duration
	// CRLFile holds revocation lists, read again every CRLFileEvery (default 500ms). Empty means that nothing is revoked,
	// and so does a file that is not there yet.
	CRLFile      string
	CRLFileEvery time.Duration
	// Recheck is given a judge of chains when what is revoked has changed, to have the peers of open connections judged
	// again. It is called a second and a third time for those whose handshakes were under way. May be nil.
	Recheck func(judge func(chain []*x509.Certificate) error)
	// Issued is told of each outcome, for metrics; may be nil.
	Issued func(id identity.ID, err error)
	Log    *slog.Logger
}

// Manager keeps an SVID for each wanted identity. It is a svid.Source, svid.Roots and svid.Revocations.
//
// A certificate is renewed at a third of its life, so an authority that is away costs nothing for two thirds of it
// (SECURITY F1). While renewal fails the old one serves until it expires; after that it is refused.
type Manager struct {
	conf  Config
	queue *queue

	mu      sync.Mutex // guards below
	entries map[identity.ID]*entry
	roots   map[string]*anchors // by trust domain

	revoked atomic.Pointer[crl.List]
	revised chan struct{} // revoked is another
}

// entry is one identity's state.
type entry struct {
	id      identity.ID
	wants   int
	urgent  atomic.Int32 // connections that wait for it
	issued  *svid.SVID
	roots   []*x509.Certificate
	changed chan struct{} // closed and replaced at each change
	lastErr error
	ctx     context.Context
	cancel  context.CancelFunc
}

// New makes a manager; it asks for nothing before Run.
func New(conf Config) *Manager {
	if conf.Parallel == 0 {
		conf.Parallel = 4
	}
	if conf.RootFileEvery == 0 {
		conf.RootFileEvery = 10 * time.Second
	}
	if conf.CRLFileEvery == 0 {
		conf.CRLFileEvery = 500 * time.Millisecond
	}
	return &Manager{conf: conf, queue: newQueue(conf.Parallel), entries: map[identity.ID]*entry{}, roots: map[string]*anchors{}, revised: make(chan struct{}, 1)}
}

// Want keeps an identity fresh until as many Forgets. The first request runs in the background, behind those that a
// connection waits for.
func (m *Manager) Want(id identity.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wantLocked(id)
}

func (m *Manager) wantLocked(id identity.ID) *entry {
	e, ok := m.entries[id]
	if !ok {
		e = &entry{id: id, changed: make(chan struct{})}
		e.ctx, e.cancel = context.WithCancel(context.Background())
		m.entries[id] = e
		m.queue.start(func() { m.keep(e) })
	}
	e.wants++
	return e
}

// Forget takes one Want back; the last one drops the key.
func (m *Manager) Forget(id identity.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[id]
	if !ok {
		return
	}
	if e.wants--; e.wants > 0 {
		return
	}
	e.cancel()
	delete(m.entries, id)
	close(e.changed)
	e.changed = make(chan struct{})
	m.pruneLocked()
}

// SVID implements svid.Source. It waits for a valid certificate until ctx ends.
func (m *Manager) SVID(ctx context.Context, id identity.ID) (*svid.SVID, error) {
	for {
		m.mu.Lock()
		e, ok := m.entries[id]
		if !ok {
			m.mu.Unlock()
			return nil, fmt.Errorf("%s is no identity of this proxy's workloads", id)
		}
		if e.valid() {
			s := e.issued
			m.mu.Unlock()
			return s, nil
		}
		changed, why := e.changed, e.whyNot()
		m.mu.Unlock()
		e.urgent.Add(1)
		m.queue.raise(e)
		select {
		case <-changed:
		case <-ctx.Done():
			e.urgent.Add(-1)
			return nil, fmt.Errorf("%w: %w", why, ctx.Err())
		}
		e.urgent.Add(-1)
	}
}

// whyNot says why an entry has no certificate to give. It needs the manager's lock.
func (e *entry) whyNot() error {
	state := "waiting for the first certificate"
	if e.issued != nil {
		state = "the certificate expired at " + e.issued.Chain[0].NotAfter.UTC().Format(time.RFC3339)
	}
	if e.lastErr != nil {
		return fmt.Errorf("%s; last request: %w", state, e.lastErr)
	}
	return errors.New(state)
}

// Run serves requests until ctx ends, and returns when all it started is gone. Revocation lists that cannot be read in
// the beginning are an error: nobody would know what they revoke.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	if m.conf.RootFile != "" {
		wg.Go(func() { m.follow(ctx, m.rootFile()) })
	}
	if m.conf.CRLFile != "" {
		f := m.crlFile()
		if err := f.read(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s not read: %w", f.what, err)
		}
		wg.Go(func() { m.follow(ctx, f) })
		if m.conf.Recheck != nil {
			wg.Go(func() { m.recheck(ctx) })
		}
	}
	m.queue.run(ctx)
	wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		e.cancel()
	}
	return nil
}

// keep asks for, renews and retries one identity until it is forgotten.
func (m *Manager) keep(e *entry) {
	retry := retryMin
	for {
		if !m.queue.enter(e) {
			return
		}
		issued, err := m.request(e)
		m.queue.exit()
		if e.ctx.Err() != nil || m.queue.ctx.Err() != nil {
			return
		}
		if m.conf.Issued != nil {
			m.conf.Issued(e.id, err)
		}
		var wait time.Duration
		if err != nil {
			wait = retry/2 + rand.N(retry/2+1)
			retry = min(retry*2, retryMax)
			m.conf.Log.Warn("certificate not issued, will retry", "identity", e.id, "error", err, "retry", wait.Round(time.Millisecond))
		} else {
			retry = retryMin
			wait = renewIn(issued.SVID.Chain[0], time.Now())
		}
		m.store(e, issued, err)
		if !m.queue.wait(e, wait) {
			return
		}
	}
}

// request asks the authority, no longer than the entry is wanted and the manager runs.
func (m *Manager) request(e *entry) (Issued, error) {
	ctx, cancel := context.WithTimeout(e.ctx, requestTimeout)
	defer cancel()
	defer context.AfterFunc(m.queue.ctx, cancel)()
	return m.conf.Authority.Issue(ctx, e.id)
}

// renewIn is a third of a certificate's life from its start, give or take 5 %.
func renewIn(leaf *x509.Certificate, now time.Time) time.Duration {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	third := life / 3
	at := leaf.NotBefore.Add(third - life/20 + rand.N(life/10+1))
	return max(at.Sub(now), time.Second)
}

func (m *Manager) store(e *entry, i Issued, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.lastErr = err
	if err != nil {
		return
	}
	e.issued, e.roots = i.SVID, i.Roots
	m.answeredLocked(e.id.TrustDomain, i.Roots)
	m.pruneLocked()
	close(e.changed)
	e.changed = make(chan struct{})
	// The authority is there: whoever has nothing to show need not wait out its backoff (SECURITY F10).
	for _, other := range m.entries {
		if other.lastErr != nil && !other.valid() {
			m.queue.raise(other)
		}
	}
}

// valid tells whether there is a certificate to give. It needs the manager's lock.
func (e *entry) valid() bool { return e.issued != nil && time.Now().Before(e.issued.Chain[0].NotAfter) }
