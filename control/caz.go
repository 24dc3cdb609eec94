package control

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/control/internal/ca"
)

// caReport is the CA as people see it.
type caReport struct {
	Phase ca.Phase
	// Until is when the phase ends; nil where it does not end by itself.
	Until *time.Time `json:",omitempty"`
	// Signer is the certificate that signs; nil while nothing is signed.
	Signer *certReport
	// Trusted are the roots that proxies are told to trust.
	Trusted []certReport
	// Problem is why the Secret as it is now is not taken over.
	Problem string `json:",omitempty"`

	root      *x509.Certificate
	chainEnds time.Time
}

type certReport struct {
	Subject, Serial, SHA256 string
	NotBefore, NotAfter     time.Time
}

func certified(c *x509.Certificate) certReport {
	sum := sha256.Sum256(c.Raw)
	return certReport{
		Subject: c.Subject.String(), Serial: fmt.Sprintf("%x", c.SerialNumber), SHA256: hex.EncodeToString(sum[:]),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
}

func (a *authority) report() caReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := caReport{Phase: a.state.Phase, Problem: a.problem, root: a.own.Root(), chainEnds: a.own.Ends()}
	if t := a.state.Next; !t.IsZero() {
		r.Until = &t
	}
	if s := a.state.Signer; s != nil {
		c := certified(s.Issuer())
		r.Signer = &c
		r.root, r.chainEnds = s.Root(), s.Ends()
	}
	for _, c := range a.state.Bundle {
		r.Trusted = append(r.Trusted, certified(c))
	}
	return r
}
