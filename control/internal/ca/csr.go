package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// maxCSR is many times what a request with a key of any sensible size takes.
const maxCSR = 16 << 10

// requestKey reads the public key of a request whose sender proved that it holds the private one. Nothing else in the
// request counts.
func requestKey(text string) (crypto.PublicKey, error) {
	if len(text) > maxCSR {
		return nil, fmt.Errorf("request of %d bytes, more than %d", len(text), maxCSR)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, fmt.Errorf("request is not a CERTIFICATE REQUEST in PEM")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("request is followed by something else")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse request: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check the request's own signature: %w", err)
	}
	return csr.PublicKey, nil
}

// checkKey admits keys that are strong, and not so large that checking them is work.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return nil
		}
		return fmt.Errorf("key on curve %s", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 4096 {
			return fmt.Errorf("RSA key of %d bits, want 2048 to 4096", bits)
		}
		if k.E < 65537 || k.E%2 == 0 {
			return fmt.Errorf("RSA key with the exponent %d", k.E)
		}
		return nil
	}
	return fmt.Errorf("key of an unknown kind (%T)", key)
}

// owns reports whether pub is a key of the authority itself, which nobody else may have certified.
func (a *Authority) owns(pub crypto.PublicKey) bool {
	for _, c := range a.chain {
		if k, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && k.Equal(pub) {
			return true
		}
	}
	return false
}
