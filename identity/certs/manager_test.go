package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/svid"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority issues certificates of a day, unless it is away.
type authority struct {
	t *testing.T

	mu     sync.Mutex
	root   *x509.Certificate
	key    *ecdsa.PrivateKey
	away   bool
	slow   time.Duration
	issued []identity.ID
}

var errAway = errors.New("authority away")

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.rotate()
	return a
}

func (a *authority) rotate() {
	a.mu.Lock()
	defer a.mu.Unlock()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now(), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.root, a.key = a.sign(tmpl, tmpl, key, key), key
}

func (a *authority) sign(tmpl, parent *x509.Certificate, pub, by *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &pub.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *authority) set(f func(*authority)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

func (a *authority) Issue(ctx context.Context, id identity.ID) (Issued, error) {
	a.mu.Lock()
	away, slow := a.away, a.slow
	a.issued = append(a.issued, id)
	a.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return Issued{}, ctx.Err()
		}
	}
	if away {
		return Issued{}, errAway
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Issued{}, err
	}
	uri, err := url.Parse(id.String())
	if err != nil {
		return Issued{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	leaf := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(int64(len(a.issued))), NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour),
		URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.root, key, a.key)
	return Issued{&svid.SVID{ID: id, Chain: []*x509.Certificate{leaf}, Key: key}, []*x509.Certificate{a.root}}, nil
}

func (a *authority) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.issued)
}

// in runs f in virtual time with a running manager.
func in(t *testing.T, f func(t *testing.T, m *Manager, a *authority)) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		m := New(Config{Authority: a, Parallel: 2, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		f(t, m, a)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

var sleep = identity.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "sleep"}

func TestWaitsForTheFirstIssue(t *testing.T) {
	in(t, func(t *testing.T, m *Manager, a *authority) {
		if _, err := m.SVID(within(t, time.Second), sleep); err == nil {
			t.Error("an identity that nobody wants was given out")
		}
		a.set(func(a *authority) { a.slow = 3 * time.Second })
		m.Want(sleep)
		if _, err := m.SVID(within(t, time.Second), sleep); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want a deadline", err)
		}
		s, err := m.SVID(within(t, 5*time.Second), sleep)
		if err != nil || s.ID != sleep {
			t.Fatalf("SVID = %v, %v", s, err)
		}
		if _, err := m.Roots("cluster.local"); err != nil {
			t.Error(err)
		}
		m.Forget(sleep)
		if _, err := m.SVID(within(t, time.Second), sleep); err == nil {
			t.Error("a forgotten identity was given out")
		}
	})
}

func TestRenewsAtAThirdOfLife(t *testing.T) {
	in(t, func(t *testing.T, m *Manager, a *authority) {
		m.Want(sleep)
		first, err := m.SVID(within(t, time.Minute), sleep)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Hour)
		if n := a.count(); n != 1 {
			t.Errorf("after 6 h: %d requests, want 1", n)
		}
		time.Sleep(4 * time.Hour)
		second, err := m.SVID(within(t, time.Minute), sleep)
		if err != nil || second == first || a.count() != 2 {
			t.Errorf("after 10 h: the same certificate, or %v; %d requests", err, a.count())
		}
	})
}

// F1: an authority that goes away at the worst moment, just before a renewal, leaves at least 14 h of validity.
func TestF1AuthorityAwayFor14HoursCostsNothing(t *testing.T) {
	in(t, func(t *testing.T, m *Manager, a *authority) {
		m.Want(sleep)
		if _, err := m.SVID(within(t, time.Minute), sleep); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6*time.Hour + 47*time.Minute) // the earliest renewal is at 6.8 h
		a.set(func(a *authority) { a.away = true })
		for range 14 * 4 {
			time.Sleep(15 * time.Minute)
			if _, err := m.SVID(within(t, time.Second), sleep); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// F10: after expiry nothing is given out; once the authority is back, a waiting connection has its certificate in 10 s.
func TestF10ExpiredThenRecovers(t *testing.T) {
	in(t, func(t *testing.T, m *Manager, a *authority) {
		m.Want(sleep)
		if _, err := m.SVID(within(t, time.Minute), sleep); err != nil {
			t.Fatal(err)
		}
		a.set(func(a *authority) { a.away = true })
		time.Sleep(25 * time.Hour)
		_, err := m.SVID(within(t, 5*time.Second), sleep)
		if !errors.Is(err, errAway) {
			t.Errorf("error %v, want it to name the authority's failure", err)
		}
		if e := m.Entries(); len(e) != 1 || e[0].State != Unavailable || e[0].Error == "" {
			t.Errorf("entries %+v", e)
		}
		a.set(func(a *authority) { a.away = false })
		start := time.Now()
		if _, err := m.SVID(within(t, time.Minute), sleep); err != nil || time.Since(start) > 10*time.Second {
			t.Errorf("recovered after %v: %v", time.Since(start), err)
		}
	})
}

func TestRootsOverlapDuringRotation(t *testing.T) {
	other := identity.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "other"}
	in(t, func(t *testing.T, m *Manager, a *authority) {
		m.Want(sleep)
		old, err := m.SVID(within(t, time.Minute), sleep)
		if err != nil {
			t.Fatal(err)
		}
		a.rotate()
		m.Want(other)
		fresh, err := m.SVID(within(t, time.Minute), other)
		if err != nil {
			t.Fatal(err)
		}
		trusts := func(s *svid.SVID) bool {
			pool, err := m.Roots("cluster.local")
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Chain[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			return err == nil
		}
		if !trusts(old) || !trusts(fresh) {
			t.Error("during rotation both roots must be trusted")
		}
		time.Sleep(10 * time.Hour) // sleep's certificate is renewed under the new root
		renewed, err := m.SVID(within(t, time.Minute), sleep)
		if err != nil {
			t.Fatal(err)
		}
		if trusts(old) || !trusts(renewed) {
			t.Error("after rotation only the new root must be trusted")
		}
	})
}

func TestAWaitingConnectionGoesFirst(t *testing.T) {
	in(t, func(t *testing.T, m *Manager, a *authority) {
		a.set(func(a *authority) { a.slow = time.Second })
		id := func(n byte) identity.ID {
			return identity.ID{TrustDomain: "cluster.local", Namespace: "n", ServiceAccount: string('a' + n)}
		}
		for n := range byte(20) {
			m.Want(id(n))
		}
		synctest.Wait()
		last := id(19)
		for _, got := range a.issued {
			if got == last {
				last = id(18)
			}
		}
		start := time.Now()
		if _, err := m.SVID(within(t, time.Minute), last); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("a waiting connection had its certificate after %v, behind the background", d)
		}
	})
}

// F10: with nobody waiting, all identities recover soon after the first one finds the authority back.
func TestF10AllRecoverWithTheFirst(t *testing.T) {
	in(t, func(t *testing.T, m *Manager, a *authority) {
		a.set(func(a *authority) { a.away = true })
		for n := range 100 {
			m.Want(identity.ID{TrustDomain: "cluster.local", Namespace: "n", ServiceAccount: fmt.Sprint("a", n)})
		}
		m.Want(sleep)
		time.Sleep(3 * time.Hour) // every backoff is at its longest
		a.set(func(a *authority) { a.away, a.issued = false, nil })
		back := time.Now()
		if _, err := m.SVID(within(t, time.Minute), sleep); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Second - time.Since(back))
		for _, e := range m.Entries() {
			if e.State != Available {
				t.Errorf("%s is %s 10 s after the authority came back", e.ID, e.State)
			}
		}
		if n := a.count(); n > 2*101 {
			t.Errorf("%d requests for 101 identities", n)
		}
	})
}

func TestAnExpiredCertificateSaysSo(t *testing.T) {
	in(t, func(t *testing.T, m *Manager, a *authority) {
		m.Want(sleep)
		if _, err := m.SVID(within(t, time.Minute), sleep); err != nil {
			t.Fatal(err)
		}
		a.set(func(a *authority) { a.away = true })
		time.Sleep(25 * time.Hour)
		_, err := m.SVID(within(t, 5*time.Second), sleep)
		if err == nil || !strings.Contains(err.Error(), "the certificate expired at 2000-01-02T") || !strings.Contains(err.Error(), errAway.Error()) {
			t.Errorf("error %v", err)
		}
	})
}

// A request under way does not hold up the end.
func TestRunEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		a.slow = time.Hour
		m := New(Config{Authority: a, Log: slog.New(slog.DiscardHandler)})
		m.Want(sleep)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		begin := time.Now()
		cancel()
		if err := <-done; err != nil || time.Since(begin) > 0 {
			t.Errorf("Run ended after %v: %v", time.Since(begin), err)
		}
	})
}

// CA-18: the file brings a root before anything is signed by it, and keeps the old one until nothing is.
func TestRootFileIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root-cert.pem")
	write := func(text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		first, second := fakeca.New(t), fakeca.New(t)
		write(first.PEM())
		m := New(Config{Authority: newAuthority(t), RootFile: path, TrustDomain: "cluster.local", Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		trusts := func(want ...bool) {
			t.Helper()
			time.Sleep(11 * time.Second)
			pool, err := m.Roots("cluster.local")
			if err != nil {
				t.Fatal(err)
			}
			for i, ca := range []*fakeca.CA{first, second} {
				_, err := ca.Issue(sleep).Chain[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
				if (err == nil) != want[i] {
					t.Errorf("root %d trusted: %v, want %v", i+1, err == nil, want[i])
				}
			}
		}
		trusts(true, false)
		write(append(first.PEM(), second.PEM()...))
		trusts(true, true)
		write([]byte("broken"))
		trusts(true, true)
		write(second.PEM())
		trusts(false, true)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
