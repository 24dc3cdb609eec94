package svid_test

import (
	"crypto/x509"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/identity/svid"
)

// ID-06: a leaf that could sign others, cannot sign for itself, or is meant for the other end proves nothing.
func TestID06LeafIsMeantForIt(t *testing.T) {
	good := x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
		want   string
	}{
		{"as it should be", func(*x509.Certificate) {}, ""},
		{"CA:TRUE", func(x *x509.Certificate) { x.IsCA = true }, "is a CA"},
		{"certSign", func(x *x509.Certificate) { x.KeyUsage |= x509.KeyUsageCertSign }, "may sign certificates"},
		{"cRLSign", func(x *x509.Certificate) { x.KeyUsage |= x509.KeyUsageCRLSign }, "may sign certificates or revocation lists"},
		{"no digitalSignature", func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageKeyEncipherment }, "may not make digital signatures"},
		{"only the other end's use", func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "not for this use"},
		{"no use at all", func(x *x509.Certificate) { x.ExtKeyUsage = nil }, "not for this use"},
	} {
		leaf := good
		c.change(&leaf)
		err := svid.CheckLeaf(&leaf, x509.ExtKeyUsageClientAuth)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
