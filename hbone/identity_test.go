package hbone_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
)

func TestClientIdentity_ID01_ID02_ID03_ID08(t *testing.T) {
	var b backend
	m := onLoopback(t, b.serve)
	foreign := fakeca.New(t)
	elsewhere := identity.ID{TrustDomain: "other.domain", Namespace: "a", ServiceAccount: "a"}
	cases := map[string]func(*tls.Config){
		"ID-01 no certificate": func(c *tls.Config) { c.GetClientCertificate = nil },
		"ID-02 foreign CA": func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return foreign.Issue(id("a")).TLS(), nil }
		},
		"ID-03 other trust domain": func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.ca.Issue(elsewhere).TLS(), nil }
		},
		"ID-08 TLS 1.2": func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			conf := mtls.Client(id("a"), m.ca, m.ca, mtls.OneOf(id("b")))
			change(conf)
			conn, err := tls.Dial("tcp", m.addr, conf)
			if err != nil {
				return // refused in the handshake
			}
			defer conn.Close()
			f := http2.NewFramer(conn, conn)
			io.WriteString(conn, http2.ClientPreface)
			f.WriteSettings()
			conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			fr, err := f.ReadFrame()
			if ne, ok := errors.AsType[net.Error](err); err == nil || ok && ne.Timeout() {
				t.Errorf("server speaks to us: %v, %v", fr, err)
			}
		})
	}
	b.untouched(t)
}

func TestOurCertificateRefusedIsATLSError_ID02(t *testing.T) {
	m := onLoopback(t, new(backend).serve)
	m.dialer.Source = fakeca.New(t)
	_, err := m.dialer.Dial(t.Context(), m.hop, "10.0.0.9:80", nil)
	if _, ok := errors.AsType[*hbone.TLSError](err); !ok {
		t.Errorf("dial: %v, want a TLSError", err)
	}
}

func TestServerWithAnotherIdentity_ID11(t *testing.T) {
	var b backend
	m := onLoopback(t, b.serve)
	for name, expect := range map[string][]identity.ID{"another": {id("c")}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			h := m.hop
			h.Expect = expect
			_, err := m.dialer.Dial(t.Context(), h, "10.0.0.9:80", nil)
			if _, ok := errors.AsType[*hbone.TLSError](err); !ok {
				t.Errorf("dial: %v, want a TLSError", err)
			}
		})
	}
	// A connection to the right peer is open; a hop that expects someone else must not get it.
	m.dial(t, "10.0.0.9:80", nil).Close()
	h := m.hop
	h.Expect = []identity.ID{id("c")}
	if _, err := m.dialer.Dial(t.Context(), h, "10.0.0.9:80", nil); err == nil {
		t.Error("a pooled connection was given to a hop that expects another peer")
	}
	if n := b.bytes.Load(); n != 0 {
		t.Errorf("backend saw %d bytes", n)
	}
}
