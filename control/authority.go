package control

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/ca"
	"github.com/ambit-mesh/ambit/control/source"
)

// authority is the CA in force, and the serving certificate that it signs for us.
type authority struct {
	conf    Config
	objects *source.Objects
	now     atomic.Pointer[ca.Authority]
	changed chan struct{} // coalesced: another CA is in force

	mu      sync.Mutex // guards below
	serving *tls.Certificate
	by      *ca.Authority
}

func newAuthority(c Config, o *source.Objects) *authority {
	return &authority{conf: c, objects: o, changed: make(chan struct{}, 1)}
}

func (a *authority) current() *ca.Authority { return a.now.Load() }

// open reads the CA from its Secret: the operator's before our own. Without either it makes one and keeps it. A Secret
// that cannot be read stops us: another CA in its place would split the mesh.
func (a *authority) open(ctx context.Context) error {
	found, err := a.read()
	if err != nil {
		return err
	}
	if found == nil {
		if found, err = ca.NewSelfSigned(a.conf.TrustDomain, time.Now()); err != nil {
			return fmt.Errorf("make a certificate authority: %w", err)
		}
		s, err := found.Secret(a.conf.RootNamespace)
		if err != nil {
			return err
		}
		if err := a.conf.Writer.Create(ctx, s); err != nil {
			return fmt.Errorf("keep the certificate authority: %w", err)
		}
		a.conf.Log.Info("made a certificate authority", "secret", s.Namespace+"/"+s.Name)
	}
	a.now.Store(found)
	return nil
}

func (a *authority) read() (*ca.Authority, error) {
	for _, name := range []string{ca.PluggedSecret, ca.SelfSignedSecret} {
		if s, ok := a.objects.Secrets.Get(source.Key(a.conf.RootNamespace, name)); ok {
			return ca.FromSecret(s, time.Now())
		}
	}
	return nil, nil
}

// follow takes over a CA whose Secret changes. A broken one is refused and the last good stays.
func (a *authority) follow(ctx context.Context) error {
	news := make(chan struct{}, 1)
	stop := a.objects.Secrets.Watch(func(es []collection.Event[*corev1.Secret]) {
		for _, e := range es {
			if e.Key == source.Key(a.conf.RootNamespace, ca.PluggedSecret) || e.Key == source.Key(a.conf.RootNamespace, ca.SelfSignedSecret) {
				signal(news)
			}
		}
	})
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		}
		found, err := a.read()
		switch {
		case err != nil:
			a.conf.Log.Error("certificate authority not taken over, the last one stays in force", "error", err)
		case found == nil:
			a.conf.Log.Warn("the certificate authority's Secret is gone; it stays in force until this process ends")
		case !found.Root().Equal(a.current().Root()) || string(found.Roots()) != string(a.current().Roots()):
			a.now.Store(found)
			signal(a.changed)
			a.conf.Log.Info("another certificate authority is in force", "root", found.Root().SerialNumber)
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// serverTLS shows proxies a certificate of the CA in force, made again at half of its life.
func (a *authority) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.certificate(time.Now()) },
	}
}

func (a *authority) certificate(now time.Time) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := a.current()
	if a.serving != nil && a.by == in && now.Before(a.serving.Leaf.NotBefore.Add(ca.ServingTTL/2)) {
		return a.serving, nil
	}
	ns := a.conf.RootNamespace
	cert, err := in.Serving([]string{
		"istiod." + ns + ".svc", "istiod." + ns, "istiod." + ns + ".svc." + a.conf.ClusterDomain, "istiod",
	}, now)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	a.serving, a.by = cert, in
	return cert, nil
}
