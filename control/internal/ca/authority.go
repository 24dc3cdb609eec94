// Package ca signs the certificates of the mesh.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/url"
	"time"

	"github.com/ambit-mesh/ambit/identity"
)

// Lifetimes.
const (
	RootTTL    = 10 * 365 * 24 * time.Hour
	DefaultTTL = 24 * time.Hour
	MaxTTL     = 90 * 24 * time.Hour
	ServingTTL = 90 * 24 * time.Hour
	backdate   = 2 * time.Minute // clocks of other machines are behind ours by less
	shortest   = time.Minute     // a certificate that ends sooner helps nobody
)

// Authority signs with one key. It is never written after it is made.
type Authority struct {
	key   crypto.Signer
	chain []*x509.Certificate // of the signing certificate, itself first, the root last
	certs []*x509.Certificate // the roots that peers must trust
	roots []byte              // certs in PEM
}

// NewSelfSigned makes an authority with a root of its own.
func NewSelfSigned(trustDomain string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of the root certificate: %w", err)
	}
	root := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{trustDomain}},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(RootTTL),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the root certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the root certificate back: %w", err)
	}
	return &Authority{key: key, chain: []*x509.Certificate{cert}, certs: []*x509.Certificate{cert}, roots: encodePEM(cert)}, nil
}

// Roots is the PEM that everybody must trust.
func (a *Authority) Roots() []byte { return a.roots }

// Pool is Roots for crypto/x509.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.roots)
	return pool
}

// Issuer is the certificate that signs.
func (a *Authority) Issuer() *x509.Certificate { return a.chain[0] }

// Ends is when the first certificate of the signing chain ends.
func (a *Authority) Ends() time.Time {
	end := a.chain[0].NotAfter
	for _, c := range a.chain {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// Root is the certificate at the end of every chain.
func (a *Authority) Root() *x509.Certificate { return a.chain[len(a.chain)-1] }

// Lifetime is what a request for ttl gets: the default for none, at most MaxTTL.
func Lifetime(ttl time.Duration) time.Duration {
	if ttl <= 0 {
		return DefaultTTL
	}
	return min(ttl, MaxTTL)
}

// Sign certifies that the holder of pub is id. It gives PEM, the leaf first and the root last.
func (a *Authority) Sign(pub crypto.PublicKey, id identity.ID, ttl time.Duration, now time.Time) ([]string, *x509.Certificate, error) {
	uri, err := url.Parse(id.String())
	if err != nil {
		return nil, nil, fmt.Errorf("write identity %s as a name: %w", id, err)
	}
	leaf := &x509.Certificate{URIs: []*url.URL{uri}}
	cert, err := a.sign(leaf, pub, Lifetime(ttl), now)
	if err != nil {
		return nil, nil, fmt.Errorf("sign %s: %w", id, err)
	}
	out := []string{string(encodePEM(cert))}
	for _, c := range a.chain {
		out = append(out, string(encodePEM(c)))
	}
	return out, cert, nil
}

// Serving makes the certificate of a server of the control plane itself.
func (a *Authority) Serving(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of the serving certificate: %w", err)
	}
	cert, err := a.sign(&x509.Certificate{DNSNames: names}, key.Public(), ServingTTL, now)
	if err != nil {
		return nil, fmt.Errorf("sign the serving certificate: %w", err)
	}
	out := &tls.Certificate{PrivateKey: key, Leaf: cert, Certificate: [][]byte{cert.Raw}}
	for _, c := range a.chain {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out, nil
}

// sign completes a leaf: never a CA, never beyond the issuer's own time.
func (a *Authority) sign(leaf *x509.Certificate, pub crypto.PublicKey, ttl time.Duration, now time.Time) (*x509.Certificate, error) {
	issuer := a.Issuer()
	leaf.NotBefore, leaf.NotAfter = now.Add(-backdate), now.Add(ttl)
	if leaf.NotBefore.Before(issuer.NotBefore) {
		leaf.NotBefore = issuer.NotBefore
	}
	for _, c := range a.chain {
		if leaf.NotAfter.After(c.NotAfter) {
			leaf.NotAfter = c.NotAfter
		}
	}
	if leaf.NotAfter.Before(now.Add(shortest)) {
		return nil, fmt.Errorf("the CA certificate ends at %s", leaf.NotAfter.Format(time.RFC3339))
	}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	leaf.BasicConstraintsValid, leaf.IsCA = true, false
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, pub, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func encodePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
