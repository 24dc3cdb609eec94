package control_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
)

// plugged is a CA as an operator makes one: a root of his own, an intermediate that signs, and the chain between.
func plugged(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	make := func(cn string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		if parent == nil {
			parent, by = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		return c, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	root, rootKey, rootPEM := make(name+" root", nil, nil)
	_, key, certPEM := make(name+" intermediate", root, rootKey)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: "cacerts", Namespace: "istio-system"},
		Data: map[string][]byte{
			"ca-cert.pem": certPEM, "ca-key.pem": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
			"root-cert.pem": rootPEM, "cert-chain.pem": certPEM,
		},
	}
}

// proxy is a node proxy as far as certificates go: it keeps those of its pods fresh and reads the roots that its kubelet
// gives it a while after they have changed.
type proxy struct {
	certs *certs.Manager
	stop  func()
}

func (v *virtual) proxy(id identity.ID, kubelet time.Duration) *proxy {
	return v.startProxy(id, kubelet, v.authority("z1", true))
}

// proxyFor is a proxy that asks for certificates of a lifetime.
func (v *virtual) proxyFor(id identity.ID, ttl time.Duration) *proxy {
	ca := v.authority("z1", true)
	ca.TTL = ttl
	return v.startProxy(id, time.Minute, ca)
}

func (v *virtual) startProxy(id identity.ID, kubelet time.Duration, ca *certs.CA) *proxy {
	m := certs.New(certs.Config{Authority: ca, TrustDomain: "cluster.local", Log: slog.New(slog.DiscardHandler)})
	m.Want(id)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = m.Run(ctx); done <- struct{}{} }()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			if roots := parse(v.cluster.roots("istio-system")); len(roots) > 0 {
				m.AddRoots("cluster.local", roots...)
			}
			select {
			case <-time.After(kubelet):
			case <-ctx.Done():
				return
			}
		}
	}()
	return &proxy{m, func() { cancel(); <-done; <-done }}
}

func parse(text string) (out []*x509.Certificate) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return out
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c)
		}
	}
}

// handshake connects a pod of one proxy with a pod of another.
func handshake(ctx context.Context, from, to *proxy, a, b identity.ID) error {
	near, far := memnet.Pipe()
	defer near.Close()
	defer far.Close()
	server := make(chan error, 1)
	go func() {
		c := tls.Server(far, mtls.Server(func(*tls.ClientHelloInfo) (identity.ID, error) { return b, nil }, to.certs, to.certs, mtls.OneOf(a)))
		_, err := mtls.Handshake(ctx, c)
		server <- err
	}()
	c := tls.Client(near, mtls.Client(a, from.certs, from.certs, mtls.OneOf(b)))
	if _, err := mtls.Handshake(ctx, c); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if err := <-server; err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}

// CA-18: while one root takes over from another no handshake fails, whoever has renewed already and whoever not, and new
// pods get their certificates. The new root is trusted first, then signing changes, and the old one leaves last; a restart
// in the middle changes nothing.
func TestCA18RootRotation(t *testing.T) {
	type rotation struct {
		name   string
		before func(t *testing.T) *corev1.Secret // nil: our own CA
		rotate func(t *testing.T, v *virtual)
	}
	for _, r := range []rotation{
		{
			name:   "an operator plugs his CA in beside ours",
			rotate: func(t *testing.T, v *virtual) { v.cluster.write(plugged(t, "one")) },
		},
		{
			name:   "an operator replaces his CA",
			before: func(t *testing.T) *corev1.Secret { return plugged(t, "one") },
			rotate: func(t *testing.T, v *virtual) { v.cluster.write(plugged(t, "two")) },
		},
		{
			name:   "our own root grows old",
			before: aging,
			rotate: func(t *testing.T, v *virtual) {
				for range 900 {
					if len(parse(v.cluster.roots("default"))) == 2 {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
				t.Fatal("no other root was made")
			},
		},
	} {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(t, cluster)
				if r.before != nil {
					m.write(r.before(t))
				}
				v := startVirtual(t, m, nil)
				synctest.Wait()
				web, other := workloadID("web"), id("istio-system", "ztunnel")
				one, two := v.proxy(web, 70*time.Second), v.proxy(other, 110*time.Second)
				defer func() { one.stop(); two.stop() }()
				ctx := t.Context()
				var count, failed atomic.Int64
				shake := func(n int, every time.Duration) {
					t.Helper()
					for i := range n {
						from, to, a, b := one, two, web, other
						if i%2 == 1 {
							from, to, a, b = two, one, other, web
						}
						count.Add(1)
						if err := handshake(ctx, from, to, a, b); err != nil && failed.Add(1) < 5 {
							t.Errorf("at %v: %v", time.Now(), err)
						}
						time.Sleep(every)
					}
				}
				shake(200, time.Millisecond)
				old := v.cluster.roots("default")
				r.rotate(t, v)
				begin := time.Now()
				shake(300, time.Millisecond)
				both := v.cluster.roots("default")
				if !strings.Contains(both, old) || len(parse(both)) != 2 {
					t.Fatalf("a second later %d roots are trusted", len(parse(both)))
				}
				newRoot := parse(both)[0]
				if newRoot.Equal(parse(old)[0]) {
					newRoot = parse(both)[1]
				}
				signs := func() *x509.Certificate {
					got, err := v.authority("web", false).Issue(ctx, web)
					if err != nil {
						t.Fatal(err)
					}
					return got.Roots[0]
				}
				if signs().Equal(newRoot) {
					t.Fatal("the new root signs before anybody can trust it")
				}
				shake(160, time.Second) // the proxies read the new root, each in its time
				if signs().Equal(newRoot) {
					t.Fatal("the new root signs early")
				}
				// A restart in the middle.
				v.stop()
				synctest.Wait()
				was := v.cluster
				v2 := startVirtual(t, was.again(), nil)
				*v = *v2
				synctest.Wait()
				if got := v.cluster.roots("default"); got != both {
					t.Fatalf("after a restart %d roots are trusted", len(parse(got)))
				}
				time.Sleep(begin.Add(3*time.Minute + time.Second).Sub(time.Now()))
				if !signs().Equal(newRoot) {
					t.Fatal("the new root does not sign after its time")
				}
				shake(300, time.Millisecond) // nobody has renewed: old and new certificates are mixed from here on
				for time.Since(begin) < 30*time.Hour {
					shake(2, time.Millisecond)
					time.Sleep(15 * time.Minute)
				}
				if got := v.cluster.roots("default"); len(parse(got)) != 1 || !parse(got)[0].Equal(newRoot) {
					t.Errorf("at the end %d roots are trusted", len(parse(got)))
				}
				if secretOf(v.cluster, "ambit-ca-rotation") != nil {
					t.Error("the old key is still there")
				}
				t.Logf("%d handshakes, %d failed", count.Load(), failed.Load())
			})
		})
	}
}

// aging is a CA of our own that enters the last fifth of its life in a quarter of a minute.
func aging(t *testing.T) *corev1.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"cluster.local"}},
		NotBefore: time.Now().Add(-400 * time.Hour), NotAfter: time.Now().Add(100*time.Hour + 20*time.Second),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: "istio-ca-secret", Namespace: "istio-system"},
		Data: map[string][]byte{
			"ca-cert.pem": cert, "root-cert.pem": cert, "ca-key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		},
	}
}

// A CA that was replaced while the control plane was away: what proxies trust stays trusted, and nothing is signed under
// the new root before it has got around, since the old key is gone.
func TestCAReplacedWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, cluster)
		m.write(plugged(t, "one"))
		v := startVirtual(t, m, nil)
		synctest.Wait()
		old := v.cluster.roots("default")
		v.stop()
		again := m.again()
		again.write(plugged(t, "two"))
		v = startVirtual(t, again, nil)
		time.Sleep(time.Second)
		if got := v.cluster.roots("default"); len(parse(got)) != 2 || !strings.Contains(got, old) {
			t.Fatalf("%d roots are trusted", len(parse(got)))
		}
		if _, err := v.authority("web", false).Issue(t.Context(), workloadID("web")); status.Code(errors.Unwrap(err)) != codes.Unavailable {
			t.Errorf("signed under a root that nobody trusts: %v", err)
		}
		time.Sleep(3 * time.Minute)
		got, err := v.authority("web", false).Issue(t.Context(), workloadID("web"))
		if err != nil || got.Roots[0].Equal(parse(old)[0]) {
			t.Errorf("after the root got around: %v, %v", got.Roots, err)
		}
		// Who must be rid of the old root at once removes the rotation.
		if err := v.cluster.Delete(t.Context(), kinds.Of(&corev1.Secret{}), "istio-system", "ambit-ca-rotation"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := v.cluster.roots("default"); len(parse(got)) != 1 || strings.Contains(got, old) {
			t.Errorf("the old root stays: %d roots", len(parse(got)))
		}
	})
}

// Two control planes rotate as one: at no moment does one sign under a root that the other does not have trusted long enough.
func TestTwoControlPlanesRotateAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, cluster)
		one := startVirtual(t, m, nil)
		synctest.Wait()
		two := startVirtual(t, m.doubled(), nil)
		synctest.Wait()
		seen := map[string]time.Time{string(parse(m.roots("default"))[0].Raw): {}} // roots, since when they are trusted
		m.write(plugged(t, "one"))
		synctest.Wait()
		var last string
		changes := 0
		for i := range 72 {
			for _, c := range parse(m.roots("default")) {
				if _, ok := seen[string(c.Raw)]; !ok {
					seen[string(c.Raw)] = time.Now()
				}
			}
			var signed []string
			for _, v := range []*virtual{one, two} {
				got, err := v.authority("web", false).Issue(t.Context(), workloadID("web"))
				if err != nil {
					t.Fatal(err)
				}
				raw := string(got.Roots[0].Raw)
				if at, ok := seen[raw]; !ok || time.Since(at) < 2*time.Minute {
					t.Fatalf("%v: signed under a root that is trusted since %v", time.Now(), at)
				}
				signed = append(signed, raw)
			}
			if signed[0] != signed[1] {
				t.Fatalf("%v: they sign under two roots", time.Now())
			}
			if last != "" && last != signed[0] {
				changes++
			}
			last = signed[0]
			if time.Sleep(15 * time.Second); i > 20 {
				time.Sleep(30 * time.Minute)
			}
			synctest.Wait() // whoever woke at this very moment has done its part
		}
		if n := len(parse(m.roots("default"))); n != 1 || changes != 1 {
			t.Errorf("%d roots are trusted in the end, after %d changes", n, changes)
		}
	})
}

// A broken Secret changes nothing, and says which file of it is at fault.
func TestBrokenCAIsNotTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs strings.Builder
		v := startVirtual(t, newMemory(t, cluster), func(c *control.Config) { c.Log = slog.New(slog.NewTextHandler(&logs, nil)) })
		synctest.Wait()
		old := v.cluster.roots("default")
		bad := plugged(t, "one")
		bad.Data["root-cert.pem"] = plugged(t, "two").Data["root-cert.pem"]
		v.cluster.write(bad)
		time.Sleep(time.Second)
		if got := v.cluster.roots("default"); got != old {
			t.Error("another root is trusted")
		}
		if _, err := v.authority("web", false).Issue(t.Context(), workloadID("web")); err != nil {
			t.Errorf("the last good one signs no more: %v", err)
		}
		v.stop()
		if !strings.Contains(logs.String(), "ca-cert.pem leads to no certificate of root-cert.pem") {
			t.Errorf("the log does not name the file:\n%s", logs.String())
		}
	})
}
