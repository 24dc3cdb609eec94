package control

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/control/internal/ca"
	"github.com/ambit-mesh/ambit/mesh"
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
	cert, err := in.Serving(a.conf.serverNames(), now)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	a.serving = serving{cert, in}
	return cert, nil
}

// serverNames are the names under which we are called: that of our Service, and of the one that every mesh has.
func (c Config) serverNames() (names []string) {
	for _, service := range slices.Compact([]string{mesh.IstiodService, c.Service}) {
		at := service + "." + c.RootNamespace
		names = append(names, at+".svc", at, at+".svc."+c.ClusterDomain, service)
	}
	return names
}
