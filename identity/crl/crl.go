// Package crl knows which certificates their issuers have revoked.
package crl

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// List is what revocation lists say. The zero value revokes nothing.
type List struct {
	issuers map[string][]*issued // by the raw name of the issuer
	lists   int
	next    time.Time
}

// issued is one revocation list.
type issued struct {
	list    *x509.RevocationList // without its entries
	serials map[string]struct{}
}

// RevokedError tells that a certificate is revoked.
type RevokedError struct{ Certificate *x509.Certificate }

func (e *RevokedError) Error() string {
	name := e.Certificate.Subject.String()
	if len(e.Certificate.URIs) > 0 {
		name = e.Certificate.URIs[0].String()
	}
	return fmt.Sprintf("certificate of %s, serial number %x, is revoked", name, e.Certificate.SerialNumber)
}

// removed is the reason with which a list takes an earlier revocation back (RFC 5280, section 5.3.1).
const removed = 8

// Parse reads revocation lists (RFC 5280): PEM blocks "X509 CRL", others being skipped, or one list as DER. A text with
// none revokes nothing.
func Parse(text []byte) (*List, error) {
	l := &List{issuers: map[string][]*issued{}}
	if len(bytes.TrimSpace(text)) == 0 {
		return l, nil
	}
	if block, _ := pem.Decode(text); block == nil {
		return l, l.add(text)
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return l, nil
		}
		if block.Type != "X509 CRL" {
			continue
		}
		if err := l.add(block.Bytes); err != nil {
			return nil, err
		}
	}
}

func (l *List) add(der []byte) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return fmt.Errorf("revocation list %d: %w", l.lists+1, err)
	}
	i := &issued{list: list, serials: make(map[string]struct{}, len(list.RevokedCertificateEntries))}
	for _, e := range list.RevokedCertificateEntries {
		if e.ReasonCode != removed {
			i.serials[key(e.SerialNumber)] = struct{}{}
		}
	}
	list.RevokedCertificateEntries, list.RevokedCertificates, list.Raw = nil, nil, nil //nolint:staticcheck // the old field holds memory too
	l.issuers[string(list.RawIssuer)] = append(l.issuers[string(list.RawIssuer)], i)
	l.lists++
	if l.next.IsZero() || !list.NextUpdate.IsZero() && list.NextUpdate.Before(l.next) {
		l.next = list.NextUpdate
	}
	return nil
}

func key(serial *big.Int) string { return string(serial.Bytes()) }

// Len is how many lists there are.
func (l *List) Len() int { return l.lists }

// Revoked is how many certificates they revoke.
func (l *List) Revoked() int {
	n := 0
	for _, all := range l.issuers {
		for _, i := range all {
			n += len(i.serials)
		}
	}
	return n
}

// Next is when the first of the lists should be replaced; zero if none says so. What it revokes stays revoked.
func (l *List) Next() time.Time { return l.next }

// Check gives a RevokedError if one of a chain's certificates is revoked. The chain is one that was verified: leaf
// first, root last. A list counts for an issuer whose key has signed it; what no list speaks of is not revoked.
func (l *List) Check(chain []*x509.Certificate) error {
	for i := 0; i+1 < len(chain); i++ {
		c, issuer := chain[i], chain[i+1]
		for _, x := range l.issuers[string(c.RawIssuer)] {
			if _, revoked := x.serials[key(c.SerialNumber)]; revoked && x.by(issuer) {
				return &RevokedError{c}
			}
		}
	}
	return nil
}

// by reports whether a list was signed with an issuer's key. That the issuer's certificate allows it to sign lists is
// not asked for: many authorities' do not say so.
func (i *issued) by(issuer *x509.Certificate) bool {
	return issuer.CheckSignature(i.list.SignatureAlgorithm, i.list.RawTBSRevocationList, i.list.Signature) == nil
}
