package control

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/control/internal/ca"
)

// serving is the certificate that we show, and who signed it.
type serving struct {
	cert *tls.Certificate
	by   *ca.Authority
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
	in := a.state.Signer
	if in == nil {
		in = a.own // whoever has read the new root already may come
	}
	if s := a.serving; s.cert != nil && s.by == in && now.Before(s.cert.Leaf.NotBefore.Add(s.cert.Leaf.NotAfter.Sub(s.cert.Leaf.NotBefore)/2)) {
		return s.cert, nil
	}
	ns := a.conf.RootNamespace
	cert, err := in.Serving([]string{
		"istiod." + ns + ".svc", "istiod." + ns, "istiod." + ns + ".svc." + a.conf.ClusterDomain, "istiod",
	}, now)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	a.serving = serving{cert, in}
	return cert, nil
}
