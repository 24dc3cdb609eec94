package certs

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/svid"
)

// What an authority may answer: peers look at no more than 8 certificates of a chain.
const (
	maxChain  = 8
	maxAnswer = 16
)

// parsePEM reads every certificate of a text; other blocks are skipped.
func parsePEM(text []byte) (certs []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return certs, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
}

// check refuses a chain that is not exactly what was asked for: our key, our identity, meant for both ends of TLS. The
// last text holds the roots, several while one follows another; one of them must vouch for the chain.
func check(pems []string, id identity.ID, key *ecdsa.PrivateKey) (Issued, error) {
	chain, roots, err := parseAnswer(pems)
	if err != nil {
		return Issued{}, fmt.Errorf("issued chain: %w", err)
	}
	leaf := chain[0]
	got, err := svid.Identity(leaf)
	if err != nil {
		return Issued{}, fmt.Errorf("issued certificate: %w", err)
	}
	if got != id {
		return Issued{}, fmt.Errorf("issued certificate is for %s, asked for %s", got, id)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return Issued{}, fmt.Errorf("issued certificate of %s is for another key", id)
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if err := svid.CheckLeaf(leaf, use); err != nil {
			return Issued{}, fmt.Errorf("issued certificate of %s: %w", id, err)
		}
	}
	pool, inter := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return Issued{}, fmt.Errorf("issued certificate of %s: %w", id, err)
	}
	return Issued{SVID: &svid.SVID{ID: id, Chain: chain, Key: key}, Roots: roots}, nil
}

// parseAnswer parts what an authority answers. One that puts all into one text has one root, the last.
func parseAnswer(pems []string) (chain, roots []*x509.Certificate, err error) {
	for i, text := range pems {
		certs, err := parsePEM([]byte(text))
		if err != nil {
			return nil, nil, err
		}
		if i > 0 && i == len(pems)-1 {
			roots = certs
		} else {
			chain = append(chain, certs...)
		}
	}
	if n := len(chain); len(pems) == 1 && n > 0 {
		chain, roots = chain[:n-1], chain[n-1:]
	}
	if n := len(chain) + len(roots); len(chain) == 0 || len(roots) == 0 || n > maxAnswer || len(chain) > maxChain {
		return nil, nil, fmt.Errorf("it has %d certificates, want a leaf, its root and not many between", n)
	}
	return chain, roots, nil
}
