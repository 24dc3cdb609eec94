package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
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
	// revoked are the serial numbers that each issuer (by its raw name) took back.
	revoked map[string]map[string]bool
	err     error
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
	if len(s.GetRevoked()) > 0 {
		var err error
		if l.revoked, err = revoked(s.GetRevoked(), s.GetCaCertificates()); err != nil {
			l.err = errors.Join(l.err, fmt.Errorf("secret %s: %w", s.GetName(), err))
		}
	}
	delete(c.bySame, c.used[s.GetName()])
	c.bySame[s], c.used[s.GetName()] = l, s
	return l
}

// tlsConfig ends TLS as the table says at the moment of the handshake: a new secret or listener needs no new socket.
// A name that no listener serves gets an alert, never another host's certificate. chosen is told whose certificate is shown.
func (s *Server) tlsConfig(addr netip.AddrPort, chosen func(*table.Listener)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			l, err := s.listenerOf(addr, hello.ServerName)
			if err != nil {
				return nil, err
			}
			chosen(l)
			return s.configOf(l)
		},
	}
}

// listenerOf finds the listener of a server name.
func (s *Server) listenerOf(addr netip.AddrPort, serverName string) (*table.Listener, error) {
	p := PortOf(s.Table(), addr)
	if p == nil {
		return nil, fmt.Errorf("nothing listens on %s any more", addr)
	}
	name, _, err := canon.Host(serverName)
	if err != nil {
		return nil, fmt.Errorf("server name: %w", err)
	}
	l := p.ForSNI(name)
	if l == nil {
		return nil, fmt.Errorf("no listener serves the name %q", name)
	}
	return l, nil
}

func (s *Server) configOf(l *table.Listener) (*tls.Config, error) {
	t := l.GetTls()
	if len(l.Secrets) == 0 {
		return nil, fmt.Errorf("listener %s has no certificate: none of the secrets %v is there", l.GetName(), t.GetSecrets())
	}
	c := &tls.Config{
		MinVersion: version(t.GetMinVersion(), tls.VersionTLS12),
		MaxVersion: version(t.GetMaxVersion(), tls.VersionTLS13),
		// A ticket would outlive a change of the listener or of the clients' CA.
		SessionTicketsDisabled: true,
	}
	if l.GetProtocol() == l7.Protocol_HTTPS {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	var err error
	if c.CipherSuites, err = cipherSuites(t.GetCipherSuites()); err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.GetName(), err)
	}
	var with *loaded // the secret that says which clients to believe
	for _, x := range l.Secrets {
		sec := s.certs.load(x)
		if sec.err != nil {
			return nil, sec.err
		}
		c.Certificates = append(c.Certificates, *sec.cert)
		if with == nil && sec.ca != nil {
			with = sec
		}
	}
	if t.GetMode() == l7.TLS_SIMPLE {
		return c, nil
	}
	if with == nil {
		return nil, fmt.Errorf("listener %s asks for client certificates, but none of the secrets %v has a CA", l.GetName(), t.GetSecrets())
	}
	c.ClientCAs = with.ca
	c.ClientAuth = tls.RequireAndVerifyClientCert
	if t.GetMode() == l7.TLS_OPTIONAL_MUTUAL {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	c.VerifyConnection = func(state tls.ConnectionState) error { return admit(t, with.revoked, state.VerifiedChains) }
	return c, nil
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
