package crl_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/crl"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
)

func list(t testing.TB, ca *fakeca.CA, reason int, serials ...*big.Int) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: time.Now(), ReasonCode: reason})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, ca.Root(), ca.Key())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func inPEM(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	return out
}

func TestWhatTheIssuerRevokedIsRevoked(t *testing.T) { // ID-16
	ca, other := fakeca.New(t), fakeca.New(t) // of one name, but not of one key
	id := identity.ID{TrustDomain: "cluster.local", Namespace: "a", ServiceAccount: "a"}
	leaf, second := ca.Issue(id).Chain[0], ca.Issue(id).Chain[0]
	n := leaf.SerialNumber
	cases := []struct {
		name    string
		text    []byte
		revoked bool
	}{
		{"nothing", nil, false},
		{"white space", []byte("\n \n"), false},
		{"PEM", inPEM(list(t, ca, 1, n)), true},
		{"DER", list(t, ca, 1, n), true},
		{"the second of two lists", inPEM(list(t, ca, 1), list(t, ca, 1, n)), true},
		{"other blocks beside it", append(ca.PEM(), inPEM(list(t, ca, 1, n))...), true},
		{"another serial number", inPEM(list(t, ca, 1, second.SerialNumber)), false},
		{"signed with another key", inPEM(list(t, other, 1, n)), false},
		{"taken back", inPEM(list(t, ca, 8, n)), false},
		{"no list among the blocks", ca.PEM(), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l, err := crl.Parse(c.text)
			if err != nil {
				t.Fatal(err)
			}
			err = l.Check([]*x509.Certificate{leaf, ca.Root()})
			e, ok := errors.AsType[*crl.RevokedError](err)
			if ok != c.revoked || ok && !e.Certificate.Equal(leaf) {
				t.Errorf("Check = %v, want revoked: %v", err, c.revoked)
			}
			if err := l.Check([]*x509.Certificate{second, ca.Root()}); err != nil && c.name != "another serial number" {
				t.Errorf("the other certificate: %v", err)
			}
		})
	}
}

func TestWhatIsNoListIsAnError(t *testing.T) {
	ca := fakeca.New(t)
	good := list(t, ca, 1, big.NewInt(7))
	for name, text := range map[string][]byte{
		"words": []byte("hello"), "half a list": good[:len(good)/2], "a certificate as a list": inPEM(ca.Root().Raw),
		"one of two is broken": inPEM(good, good[:10]),
	} {
		if _, err := crl.Parse(text); err == nil {
			t.Errorf("%s: read without an error", name)
		}
	}
}

// Bytes of whatever kind are read or refused, and never revoke what no list of its issuer names.
func FuzzParse(f *testing.F) {
	ca := fakeca.New(f)
	leaf := ca.Issue(identity.ID{TrustDomain: "cluster.local", Namespace: "a", ServiceAccount: "a"}).Chain[0]
	der := list(f, ca, 1, big.NewInt(7))
	f.Add(der)
	f.Add(inPEM(der))
	f.Add(bytes.Repeat([]byte{0x30, 0x80}, 40))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := crl.Parse(text)
		if err != nil {
			return
		}
		if err := l.Check([]*x509.Certificate{leaf, ca.Root()}); err != nil {
			t.Fatalf("revoked by whom? %v", err)
		}
	})
}
