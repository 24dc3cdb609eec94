package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
)

// originate makes what turns a connection into one of TLS; nil without TLS. A rule that cannot be kept is an error, so
// that nothing goes out in the clear or to somebody unverified.
func originate(w way) (func(context.Context, net.Conn) (net.Conn, error), error) {
	t := w.tls
	if t == nil || t.GetMesh() {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.GetSni(), NextProtos: []string{"http/1.1"}}
	if conf.ServerName == "" {
		conf.ServerName = w.name
	}
	if w.target.HTTP2 {
		conf.NextProtos = []string{"h2"}
	}
	if name := t.GetSecret(); name != "" {
		s := w.secret
		if s == nil {
			return nil, fmt.Errorf("TLS to %s: secret %s is not there", w.name, name)
		}
		if len(s.GetCertificateChain()) > 0 {
			own, err := tls.X509KeyPair(s.GetCertificateChain(), s.GetPrivateKey())
			if err != nil {
				return nil, fmt.Errorf("TLS to %s: secret %s: %w", w.name, name, err)
			}
			conf.Certificates = []tls.Certificate{own}
		}
		if len(s.GetCaCertificates()) > 0 {
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(s.GetCaCertificates()) {
				return nil, fmt.Errorf("TLS to %s: secret %s: no CA certificate can be read", w.name, name)
			}
		}
	}
	verify(conf, t.GetSubjectAltNames(), t.GetInsecure())
	return func(ctx context.Context, c net.Conn) (net.Conn, error) {
		s := tls.Client(c, conf)
		if err := s.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		return s, nil
	}, nil
}

// verify sets what a backend must prove: a chain to the roots, and one of the names if there are any, else the server name.
func verify(conf *tls.Config, names []string, insecure bool) {
	if !insecure && len(names) == 0 {
		return
	}
	conf.InsecureSkipVerify = true // replaced by the function below
	if insecure {
		return
	}
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("the backend showed no certificate")
		}
		rest := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			rest.AddCert(c)
		}
		leaf := s.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: conf.RootCAs, Intermediates: rest}); err != nil {
			return err
		}
		if !slices.ContainsFunc(names, func(n string) bool { return named(leaf, n) }) {
			return fmt.Errorf("the backend's certificate names none of %v", names)
		}
		return nil
	}
}

func named(c *x509.Certificate, name string) bool {
	for _, u := range c.URIs {
		if u.String() == name {
			return true
		}
	}
	return slices.Contains(c.EmailAddresses, name) || c.VerifyHostname(name) == nil
}
