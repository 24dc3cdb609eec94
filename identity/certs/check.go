package certs

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/svid"
)

// maxChain bounds what an authority may answer; peers look at no more than 8.
const maxChain = 9

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

// check refuses a chain that is not exactly what was asked for: our key, our identity, meant for both ends of TLS.
func check(pems []string, id identity.ID, key *ecdsa.PrivateKey) (Issued, error) {
	var chain []*x509.Certificate
	for _, text := range pems {
		certs, err := parsePEM([]byte(text))
		if err != nil {
			return Issued{}, fmt.Errorf("issued chain: %w", err)
		}
		chain = append(chain, certs...)
	}
	if len(chain) < 2 || len(chain) > maxChain {
		return Issued{}, fmt.Errorf("issued chain has %d certificates, want a leaf, its root and not many between", len(chain))
	}
	leaf, root := chain[0], chain[len(chain)-1]
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
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, c := range chain[1 : len(chain)-1] {
		inter.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return Issued{}, fmt.Errorf("issued certificate of %s: %w", id, err)
	}
	return Issued{SVID: &svid.SVID{ID: id, Chain: chain[:len(chain)-1], Key: key}, Root: root}, nil
}
