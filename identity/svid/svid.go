// Package svid holds X.509-SVIDs and the roots that vouch for them, as immutable values.
package svid

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/ambit-mesh/ambit/identity"
)

// SVID is a certificate chain, leaf first, and the key of its leaf. It is never written after it is made.
type SVID struct {
	ID    identity.ID
	Chain []*x509.Certificate
	Key   crypto.Signer
}

// TLS is the SVID as crypto/tls wants it.
func (s *SVID) TLS() *tls.Certificate {
	c := &tls.Certificate{PrivateKey: s.Key, Leaf: s.Chain[0]}
	for _, x := range s.Chain {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c
}

// Source hands out SVIDs. SVID waits for the first issue, until ctx ends.
type Source interface {
	SVID(ctx context.Context, id identity.ID) (*SVID, error)
}

// Roots are the trust anchors of a trust domain.
type Roots interface {
	Roots(trustDomain string) (*x509.CertPool, error)
}

// Revocations are Roots that know of certificates which their issuers have revoked. Revoked judges a chain that was
// verified, leaf first and root last; an error says which certificate is revoked.
type Revocations interface {
	Revoked(chain []*x509.Certificate) error
}

// Identity reads the one identity that a certificate proves. A leaf with no URI, several, or a bad one proves nothing
// (X.509-SVID, section 2).
func Identity(leaf *x509.Certificate) (identity.ID, error) {
	if len(leaf.URIs) != 1 {
		return identity.ID{}, fmt.Errorf("certificate has %d URI names, want one SPIFFE identity", len(leaf.URIs))
	}
	return identity.Parse(leaf.URIs[0].String())
}

// CheckLeaf applies the rules of the X.509-SVID standard (section 4) to a leaf: it must not be able to sign
// certificates, and must be meant for signatures and for the given use.
func CheckLeaf(leaf *x509.Certificate, use x509.ExtKeyUsage) error {
	if leaf.IsCA {
		return fmt.Errorf("leaf certificate is a CA")
	}
	if leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return fmt.Errorf("leaf certificate may sign certificates or revocation lists")
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return fmt.Errorf("leaf certificate may not make digital signatures")
	}
	for _, u := range leaf.ExtKeyUsage {
		if u == use || u == x509.ExtKeyUsageAny || use == x509.ExtKeyUsageAny {
			return nil
		}
	}
	return fmt.Errorf("leaf certificate is not for this use")
}
