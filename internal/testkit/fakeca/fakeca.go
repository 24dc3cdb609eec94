// Package fakeca is a certificate authority for tests.
package fakeca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/svid"
)

// TrustDomain is the trust domain of a CA made by New.
const TrustDomain = "cluster.local"

// CA issues SVIDs of one trust domain. It is a svid.Source that knows every identity, and the svid.Roots of its
// trust domain. A CA made by another call of New has another root: that is how a test makes a foreign one.
type CA struct {
	t    testing.TB
	td   string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool

	mu     sync.Mutex                     // guards below
	serial int64                          // of the last certificate
	issued map[identity.ID]*svid.SVID     // what SVID has handed out
	also   map[string][]*x509.Certificate // further roots, by trust domain
}

// New makes a CA of the trust domain cluster.local. Inside a synctest bubble the certificates are of the bubble's time.
func New(t testing.TB) *CA { return NewDomain(t, TrustDomain) }

// NewDomain makes a CA of the given trust domain.
func NewDomain(t testing.TB, trustDomain string) *CA {
	t.Helper()
	c := &CA{t: t, td: trustDomain, issued: map[identity.ID]*svid.SVID{}, also: map[string][]*x509.Certificate{}, pool: x509.NewCertPool()}
	c.key = c.newKey()
	now := time.Now()
	c.cert = c.sign(&x509.Certificate{
		SerialNumber: big.NewInt(c.next()), Subject: pkix.Name{Organization: []string{trustDomain}, CommonName: "test root"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, c.key)
	c.pool.AddCert(c.cert)
	return c
}

// Option makes a certificate that is not an ordinary one.
type Option func(*x509.Certificate)

// Expired makes a certificate that ended an hour ago.
func Expired() Option {
	return func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-25*time.Hour), time.Now().Add(-time.Hour)
	}
}

// NotYetValid makes a certificate that begins in an hour.
func NotYetValid() Option {
	return func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }
}

// Usage replaces the extended key usages; the ordinary ones are client and server.
func Usage(u ...x509.ExtKeyUsage) Option {
	return func(c *x509.Certificate) { c.ExtKeyUsage = u }
}

// Authority makes a leaf that is a CA, which an SVID's leaf must not be.
func Authority() Option {
	return func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }
}

// URIs replaces the names in the certificate; the ordinary one is the identity.
func URIs(uris ...string) Option {
	return func(c *x509.Certificate) {
		c.URIs = nil
		for _, s := range uris {
			u, err := url.Parse(s)
			if err != nil {
				panic(fmt.Sprintf("fakeca: URI %q: %v", s, err))
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

// Issue makes a new SVID, of whatever trust domain id names.
func (c *CA) Issue(id identity.ID, opts ...Option) *svid.SVID {
	c.t.Helper()
	key := c.newKey()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(c.next()), NotBefore: time.Now().Add(-2 * time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	URIs(id.String())(leaf)
	for _, o := range opts {
		o(leaf)
	}
	return &svid.SVID{ID: id, Chain: []*x509.Certificate{c.sign(leaf, c.cert, key)}, Key: key}
}

// SVID gives the ordinary SVID of id, the same one each time.
func (c *CA) SVID(_ context.Context, id identity.ID) (*svid.SVID, error) {
	if id.IsZero() {
		return nil, fmt.Errorf("no certificate for nobody")
	}
	c.mu.Lock()
	s := c.issued[id]
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s = c.Issue(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.issued[id]; first != nil {
		return first, nil
	}
	c.issued[id] = s
	return s, nil
}

// Use makes SVID hand out s for id from now on.
func (c *CA) Use(id identity.ID, s *svid.SVID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.issued[id] = s
}

// Trust adds another CA's root to what Roots gives for its trust domain.
func (c *CA) Trust(other *CA) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.also[other.td] = append(c.also[other.td], other.cert)
}

// Roots gives the root of the CA's own trust domain, and of those that Trust has added.
func (c *CA) Roots(trustDomain string) (*x509.CertPool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	also := c.also[trustDomain]
	if trustDomain != c.td && len(also) == 0 {
		return nil, fmt.Errorf("no roots for trust domain %s", trustDomain)
	}
	pool := x509.NewCertPool()
	if trustDomain == c.td {
		pool.AddCert(c.cert)
	}
	for _, x := range also {
		pool.AddCert(x)
	}
	return pool, nil
}

// Root is the CA's own certificate.
func (c *CA) Root() *x509.Certificate { return c.cert }

// Key signs what the CA issues.
func (c *CA) Key() *ecdsa.PrivateKey { return c.key }

// PEM is the CA's own certificate as text.
func (c *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

func (c *CA) next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial++
	return c.serial
}

func (c *CA) newKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("fakeca: make a key: %v", err))
	}
	return k
}

// sign makes a certificate; without a parent it signs itself.
func (c *CA) sign(x, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	if parent == nil {
		parent = x
	}
	der, err := x509.CreateCertificate(rand.Reader, x, parent, &key.PublicKey, c.key)
	if err != nil {
		panic(fmt.Sprintf("fakeca: sign: %v", err))
	}
	got, err := x509.ParseCertificate(der)
	if err != nil {
		panic(fmt.Sprintf("fakeca: read back: %v", err))
	}
	return got
}
