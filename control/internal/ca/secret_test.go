package ca

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made is a certificate that an operator made.
type made struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

func (m made) keyPEM(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(m.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// operator makes a certificate under another, or of its own.
func operator(t *testing.T, name string, key crypto.Signer, by *made, change func(*x509.Certificate)) made {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour * 24 * 30),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return made{c, key, encodePEM(c)}
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// What an operator plugs in: RSA or ECDSA, with any number of intermediates between. Every leaf comes with its way to the root.
func TestPluggedChains(t *testing.T) {
	now := time.Now()
	for name, key := range map[string]func() crypto.Signer{
		"RSA":   func() crypto.Signer { return rsaKey(t) },
		"ECDSA": func() crypto.Signer { return ecKey(t, elliptic.P384()) },
	} {
		root := operator(t, "root", key(), nil, nil)
		middle := operator(t, "middle", key(), &root, nil)
		signing := operator(t, "signing", key(), &middle, nil)
		for files, data := range map[string]map[string][]byte{
			"chain with the signing certificate": {certKey: signing.pem, chainKey: append(bytes.Clone(signing.pem), middle.pem...), rootKey: root.pem},
			"chain in the certificate's file":    {certKey: append(bytes.Clone(signing.pem), middle.pem...), rootKey: root.pem},
			"an old root beside the new":         {certKey: signing.pem, chainKey: middle.pem, rootKey: append(bytes.Clone(root.pem), operator(t, "old", key(), nil, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }).pem...)},
		} {
			data[keyKey] = signing.keyPEM(t)
			a, err := FromSecret(&corev1.Secret{Data: data}, now)
			if err != nil {
				t.Errorf("%s, %s: %v", name, files, err)
				continue
			}
			chain, leaf, err := a.Sign(ecKey(t, elliptic.P256()).Public(), identity.ID{TrustDomain: "td", Namespace: "a", ServiceAccount: "b"}, 0, now)
			if err != nil {
				t.Fatal(err)
			}
			between := x509.NewCertPool()
			between.AppendCertsFromPEM([]byte(strings.Join(chain[1:len(chain)-1], "")))
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), Intermediates: between}); err != nil || len(chain) != 4 || chain[3] != string(root.pem) {
				t.Errorf("%s, %s: chain of %d: %v", name, files, len(chain), err)
			}
			// What is kept and read back is the same authority.
			again, err := a.data()
			if err != nil {
				t.Fatal(err)
			}
			if b, err := fromData(again, now); err != nil || b.Name() != a.Name() || len(b.chain) != len(a.chain) {
				t.Errorf("%s, %s: kept and read back: %v", name, files, err)
			}
		}
	}
}

// What is wrong with an operator's files is said by the name of the file.
func TestBadPluggedFiles(t *testing.T) {
	now := time.Now()
	root := operator(t, "root", ecKey(t, elliptic.P256()), nil, nil)
	good := operator(t, "signing", ecKey(t, elliptic.P256()), &root, nil)
	expired := operator(t, "expired", good.key, &root, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	future := operator(t, "future", good.key, &root, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) })
	leaf := operator(t, "leaf", good.key, &root, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	noSign := operator(t, "usage", good.key, &root, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	gone := operator(t, "gone", ecKey(t, elliptic.P256()), nil, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	foreign := operator(t, "foreign", ecKey(t, elliptic.P256()), nil, nil)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skipf("this toolchain makes no key of 1024 bits: %v", err)
	}
	weak := operator(t, "weak", small, &root, nil)
	for name, c := range map[string]struct {
		change map[string][]byte
		want   string
	}{
		"no key":                  {map[string][]byte{keyKey: nil}, "ca-key.pem is missing"},
		"no certificate":          {map[string][]byte{certKey: nil}, "ca-cert.pem is missing"},
		"key of another":          {map[string][]byte{keyKey: foreign.keyPEM(t)}, "ca-key.pem is not the key of the first certificate of ca-cert.pem"},
		"expired":                 {map[string][]byte{certKey: expired.pem}, "ca-cert.pem: certificate 1 has expired on"},
		"not yet valid":           {map[string][]byte{certKey: future.pem}, "ca-cert.pem: certificate 1 is not valid before"},
		"no CA":                   {map[string][]byte{certKey: leaf.pem}, "ca-cert.pem may not sign certificates"},
		"usage without signing":   {map[string][]byte{certKey: noSign.pem}, "ca-cert.pem may not sign certificates"},
		"another root":            {map[string][]byte{rootKey: foreign.pem}, "ca-cert.pem leads to no certificate of root-cert.pem"},
		"expired root":            {map[string][]byte{rootKey: gone.pem}, "root-cert.pem: certificate 1 has expired on"},
		"a leaf as root":          {map[string][]byte{rootKey: append(bytes.Clone(root.pem), leaf.pem...)}, "root-cert.pem holds CN=leaf, which is no CA certificate"},
		"expired in the chain":    {map[string][]byte{chainKey: gone.pem}, "cert-chain.pem: certificate 1 has expired on"},
		"a key as certificate":    {map[string][]byte{certKey: good.keyPEM(t)}, "ca-cert.pem holds a PRIVATE KEY, want CERTIFICATE"},
		"a certificate as key":    {map[string][]byte{keyKey: good.pem}, "ca-key.pem: read the private key: holds a CERTIFICATE, want PRIVATE KEY"},
		"an encrypted key":        {map[string][]byte{keyKey: pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})}, "it is encrypted"},
		"garbage for the root":    {map[string][]byte{rootKey: []byte("hello")}, "root-cert.pem is not a list of certificates in PEM"},
		"garbage behind the root": {map[string][]byte{rootKey: append(bytes.Clone(root.pem), "x"...)}, "root-cert.pem is not a list of certificates in PEM"},
		"a weak key":              {map[string][]byte{certKey: weak.pem, keyKey: weak.keyPEM(t)}, "ca-key.pem: RSA key of 1024 bits"},
	} {
		data := map[string][]byte{certKey: good.pem, keyKey: good.keyPEM(t), rootKey: root.pem}
		maps.Copy(data, c.change)
		s := &corev1.Secret{Data: data}
		s.Namespace, s.Name = "istio-system", PluggedSecret
		if _, err := FromSecret(s, now); err == nil || !strings.HasPrefix(err.Error(), "read CA from Secret istio-system/cacerts: "+c.want) && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		} else if strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%s: the error holds material: %v", name, err)
		}
	}
}

// A rotation that is interrupted by another: what was on its way in is no longer wanted, what is trusted stays so.
func TestRotationOverRotation(t *testing.T) {
	now := time.Now()
	p := Periods{Distribute: time.Minute, Overlap: time.Hour}
	var all []*Authority
	for range 3 {
		a, err := NewSelfSigned("cluster.local", now)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	a, b, c := all[0], all[1], all[2]
	check := func(what string, s State, phase Phase, signer *Authority, trusted ...*Authority) {
		t.Helper()
		ok := s.Phase == phase && s.Signer == signer && len(s.Bundle) == len(trusted)
		for _, x := range trusted {
			ok = ok && contains(s.Bundle, x.Root())
		}
		if !ok {
			t.Errorf("%s: phase %q, signer is a %v b %v c %v, %d trusted", what, s.Phase, s.Signer == a, s.Signer == b, s.Signer == c, len(s.Bundle))
		}
	}
	stable := Rotation{}.At(a, now)
	check("at first", stable, Stable, a, a)
	ab := Rotation{}.Begin(stable, b, now, time.Time{}, p)
	check("b comes", ab.At(b, now), Distributing, a, a, b)
	check("b signs", ab.At(b, now.Add(time.Minute)), Retiring, b, a, b)
	check("a has left", ab.At(b, now.Add(time.Hour+time.Minute)), Stable, b, b)

	mid := now.Add(30 * time.Second)
	ac := ab.Begin(ab.At(b, mid), c, mid, time.Time{}, p)
	check("c instead of b", ac.At(c, mid), Distributing, a, a, c)
	check("not at b's time", ac.At(c, now.Add(time.Minute)), Distributing, a, a, c)

	late := now.Add(10 * time.Minute)
	bc := ab.Begin(ab.At(b, late), c, late, time.Time{}, p)
	check("c after b", bc.At(c, late), Distributing, b, a, b, c)
	check("a leaves in its own time", bc.At(c, now.Add(time.Hour+2*time.Minute)), Retiring, c, b, c)

	back := ab.Begin(ab.At(b, mid), a, mid, time.Time{}, p)
	check("b was a mistake", back.At(a, mid), Stable, a, a)

	long := now.Add(100 * time.Hour)
	kept, changed, ok := ab.Settled(now.Add(time.Minute), long)
	if !changed || !ok || kept.Signing != nil || !kept.Old[0].Until.Equal(long) {
		t.Errorf("a root must stay as long as what hangs on it: %+v", kept)
	}
	s, err := ab.Secret("istio-system")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := RotationFromSecret(s, now); err != nil || !got.Same(ab) || got.Signing.Name() != a.Name() {
		t.Errorf("kept and read back: %v", err)
	}
	s.Data[planKey] = []byte("{")
	if _, err := RotationFromSecret(s, now); err == nil || !strings.Contains(err.Error(), "ambit-ca-rotation: rotation.json") {
		t.Errorf("a broken one: %v", err)
	}
}
