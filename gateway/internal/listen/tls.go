package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/canon"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
)

// certificates parses each secret once. A secret that comes anew is used by the next handshake.
type certificates struct {
	mu     sync.Mutex             // guards below
	bySame map[*l7.Secret]*loaded // by identity of the resource
	used   map[string]*l7.Secret  // name → the one in bySame
}

type loaded struct {
	cert *tls.Certificate
	ca   *x509.CertPool // nil if the secret has none
	err  error
}

func (c *certificates) load(s *l7.Secret) *loaded {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.bySame[s]; l != nil {
		return l
	}
	if c.bySame == nil {
		c.bySame, c.used = map[*l7.Secret]*loaded{}, map[string]*l7.Secret{}
	}
	l := &loaded{}
	if cert, err := tls.X509KeyPair(s.GetCertificateChain(), s.GetPrivateKey()); err != nil {
		l.err = fmt.Errorf("secret %s: %w", s.GetName(), err)
	} else {
		l.cert = &cert
	}
	if len(s.GetCaCertificates()) > 0 {
		l.ca = x509.NewCertPool()
		if !l.ca.AppendCertsFromPEM(s.GetCaCertificates()) {
			l.err = errors.Join(l.err, fmt.Errorf("secret %s: no CA certificate can be read", s.GetName()))
		}
	}
	delete(c.bySame, c.used[s.GetName()])
	c.bySame[s], c.used[s.GetName()] = l, s
	return l
}

// tlsConfig ends TLS as the table says at the moment of the handshake: a new secret or listener needs no new socket.
// A name that no listener serves gets an alert, never another host's certificate.
func (s *Server) tlsConfig(addr netip.AddrPort) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			p := PortOf(s.Table(), addr)
			if p == nil {
				return nil, fmt.Errorf("nothing listens on %s any more", addr)
			}
			name, _, err := canon.Host(hello.ServerName)
			if err != nil {
				return nil, fmt.Errorf("server name: %w", err)
			}
			l := p.ForSNI(name)
			if l == nil {
				return nil, fmt.Errorf("no listener serves the name %q", name)
			}
			return s.configOf(l)
		},
	}
}

func (s *Server) configOf(l *table.Listener) (*tls.Config, error) {
	if l.Secret == nil {
		return nil, fmt.Errorf("listener %s has no certificate: secret %s is not there", l.GetName(), l.GetTls().GetSecret())
	}
	sec := s.certs.load(l.Secret)
	if sec.err != nil {
		return nil, sec.err
	}
	c := &tls.Config{
		Certificates: []tls.Certificate{*sec.cert},
		NextProtos:   []string{"h2", "http/1.1"},
		MinVersion:   version(l.GetTls().GetMinVersion(), tls.VersionTLS12),
		MaxVersion:   version(l.GetTls().GetMaxVersion(), tls.VersionTLS13),
		// A ticket would outlive a change of the listener or of the clients' CA.
		SessionTicketsDisabled: true,
	}
	mode := l.GetTls().GetMode()
	if mode == l7.TLS_SIMPLE {
		return c, nil
	}
	if sec.ca == nil {
		return nil, fmt.Errorf("listener %s asks for client certificates, but secret %s has no CA", l.GetName(), l.Secret.GetName())
	}
	c.ClientCAs = sec.ca
	c.ClientAuth = tls.RequireAndVerifyClientCert
	if mode == l7.TLS_OPTIONAL_MUTUAL {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if want := l.GetTls().GetSubjectAltNames(); len(want) > 0 {
		c.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 || !slices.ContainsFunc(names(state.PeerCertificates[0]), func(n string) bool { return slices.Contains(want, n) }) {
				return errors.New("the client's certificate has none of the names that the gateway admits")
			}
			return nil
		}
	}
	return c, nil
}

func names(c *x509.Certificate) []string {
	all := slices.Concat(c.DNSNames, c.EmailAddresses)
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	return all
}

func version(v uint32, otherwise uint16) uint16 {
	switch v {
	case 10:
		return tls.VersionTLS10
	case 11:
		return tls.VersionTLS11
	case 12:
		return tls.VersionTLS12
	case 13:
		return tls.VersionTLS13
	}
	return otherwise
}

// PortOf finds a port of a table.
func PortOf(t *table.Table, addr netip.AddrPort) *table.Port {
	for _, p := range t.Ports {
		if p.Addr == addr {
			return p
		}
	}
	return nil
}
