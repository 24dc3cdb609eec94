// Package mtls makes the TLS configuration of each end of a mutually authenticated connection.
package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/crl"
	"github.com/ambit-mesh/ambit/identity/svid"
)

// ALPN is what both ends of HBONE speak.
const ALPN = "h2"

// Authorize decides whether a peer, whose chain has been verified, is the one we want. An error says why not.
type Authorize func(peer identity.ID) error

// OneOf admits exactly the given identities; none of them means nobody.
func OneOf(ids ...identity.ID) Authorize {
	return func(peer identity.ID) error {
		for _, id := range ids {
			if id == peer {
				return nil
			}
		}
		return fmt.Errorf("peer is %s, want one of %v", peer, ids)
	}
}

// InTrustDomain admits every identity of one trust domain.
func InTrustDomain(td string) Authorize {
	return func(peer identity.ID) error {
		if peer.TrustDomain != td {
			return fmt.Errorf("peer %s is not of trust domain %s", peer, td)
		}
		return nil
	}
}

// Client is the configuration of the end that dials: TLS 1.3, our SVID, no SNI, no resumption, and a peer that
// must prove an identity which allow admits. The chain is verified against the roots of the peer's trust domain.
func Client(own identity.ID, src svid.Source, roots svid.Roots, allow Authorize) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{ALPN},
		SessionTicketsDisabled: true,
		// Small first records cost a proxy more than they gain it: its bytes come in bulk or in single messages.
		DynamicRecordSizingDisabled: true,
		InsecureSkipVerify:          true, // there is no host name to check: VerifyConnection checks the identity instead
		GetClientCertificate: func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			s, err := src.SVID(info.Context(), own)
			if err != nil {
				return nil, fmt.Errorf("certificate of %s: %w", own, err)
			}
			return s.TLS(), nil
		},
		VerifyConnection: verify(roots, x509.ExtKeyUsageServerAuth, allow),
	}
}

// Server is the configuration of the end that accepts. own chooses the identity to show, from where the
// connection came in (never from SNI). The client must prove an identity that allow admits.
func Server(own func(*tls.ClientHelloInfo) (identity.ID, error), src svid.Source, roots svid.Roots, allow Authorize) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{ALPN},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		ClientAuth:                  tls.RequireAnyClientCert,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			id, err := own(hello)
			if err != nil {
				return nil, err
			}
			s, err := src.SVID(hello.Context(), id)
			if err != nil {
				return nil, fmt.Errorf("certificate of %s: %w", id, err)
			}
			return s.TLS(), nil
		},
		VerifyConnection: verify(roots, x509.ExtKeyUsageClientAuth, allow),
	}
}

// Peer is the identity that the other end of a finished handshake proved.
func Peer(state tls.ConnectionState) (identity.ID, error) {
	if len(state.PeerCertificates) == 0 {
		return identity.ID{}, errors.New("peer showed no certificate")
	}
	return svid.Identity(state.PeerCertificates[0])
}

// maxChain bounds the work that a stranger's chain can cause.
const maxChain = 8

// verify runs on every connection, resumed ones too (crypto/tls documents that for VerifyConnection only).
func verify(roots svid.Roots, use x509.ExtKeyUsage, allow Authorize) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if state.NegotiatedProtocol != ALPN {
			return fmt.Errorf("peer negotiated protocol %q, want %q", state.NegotiatedProtocol, ALPN)
		}
		if n := len(state.PeerCertificates); n > maxChain {
			return fmt.Errorf("peer showed %d certificates, at most %d are looked at", n, maxChain)
		}
		peer, err := Peer(state)
		if err != nil {
			return err
		}
		if err := Verify(state.PeerCertificates, peer.TrustDomain, roots, use, time.Time{}); err != nil {
			return fmt.Errorf("peer %s: %w", peer, err)
		}
		return allow(peer)
	}
}

// Verify checks a chain, leaf first, against the roots of a trust domain, and against what they know of revocations.
// The zero time means now.
func Verify(chain []*x509.Certificate, trustDomain string, roots svid.Roots, use x509.ExtKeyUsage, now time.Time) error {
	pool, err := roots.Roots(trustDomain)
	if err != nil {
		return fmt.Errorf("roots of trust domain %s: %w", trustDomain, err)
	}
	if err := svid.CheckLeaf(chain[0], use); err != nil {
		return err
	}
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: inter, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use},
	})
	if err != nil {
		return err
	}
	r, ok := roots.(svid.Revocations)
	if !ok {
		return nil
	}
	for _, c := range chains { // one way to a root on which nothing is revoked is enough
		if err = r.Revoked(c); err == nil {
			return nil
		}
	}
	return err
}

// Recheck judges the chain of a connection that is open: has it been revoked since? A certificate that has ended
// meanwhile, or whose root is no longer trusted, was good when the connection began.
func Recheck(chain []*x509.Certificate, roots svid.Roots) error {
	if len(chain) == 0 {
		return errors.New("peer showed no certificate")
	}
	peer, err := svid.Identity(chain[0])
	if err != nil {
		return err
	}
	now := time.Now()
	for _, c := range chain {
		if now.After(c.NotAfter) {
			now = c.NotAfter
		}
	}
	err = Verify(chain, peer.TrustDomain, roots, x509.ExtKeyUsageAny, now)
	if _, revoked := errors.AsType[*crl.RevokedError](err); revoked {
		return err
	}
	return nil
}

// PostQuantum are the key exchanges that resist quantum computers, for configurations that shall use no other. The
// default prefers them, and also speaks with peers that have none.
func PostQuantum() []tls.CurveID { return []tls.CurveID{tls.X25519MLKEM768} }

// Handshake runs a handshake and returns the identity that the peer proved.
func Handshake(ctx context.Context, c *tls.Conn) (identity.ID, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		return identity.ID{}, err
	}
	return Peer(c.ConnectionState())
}
