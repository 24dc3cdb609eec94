package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/mesh"
)

// Names of the Secrets that hold an authority, and of the keys in them.
const (
	SelfSignedSecret = mesh.CASecret // made here
	PluggedSecret    = "cacerts"     // made by the operator; wins

	certKey  = "ca-cert.pem"
	keyKey   = "ca-key.pem"
	chainKey = "cert-chain.pem"
	rootKey  = "root-cert.pem"
)

// Secret is how the authority is kept.
func (a *Authority) Secret(namespace string) (*corev1.Secret, error) {
	data, err := a.data()
	if err != nil {
		return nil, err
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: SelfSignedSecret, Namespace: namespace},
		Type:       "istio.io/ca-root", Data: data,
	}, nil
}

func (a *Authority) data() (map[string][]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("write the CA key: %w", err)
	}
	out := map[string][]byte{
		certKey: encodePEM(a.Issuer()),
		keyKey:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		rootKey: a.roots,
	}
	for _, c := range a.chain[1:] {
		out[chainKey] = append(out[chainKey], encodePEM(c)...)
	}
	return out, nil
}

// FromSecret reads an authority and checks that it can do its work at now.
func FromSecret(s *corev1.Secret, now time.Time) (*Authority, error) {
	a, err := fromData(s.Data, now)
	if err != nil {
		return nil, fmt.Errorf("read CA from Secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	return a, nil
}

func fromData(data map[string][]byte, now time.Time) (*Authority, error) {
	for _, name := range []string{keyKey, certKey} {
		if len(data[name]) == 0 {
			return nil, fmt.Errorf("%s is missing", name)
		}
	}
	key, err := parseKey(data[keyKey])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyKey, err)
	}
	signing, err := parseCerts(certKey, data[certKey])
	if err != nil {
		return nil, err
	}
	if err := inDate(certKey, signing, now); err != nil {
		return nil, err
	}
	issuer := signing[0]
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(issuer.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of the first certificate of %s", keyKey, certKey)
	}
	if err := checkKey(key.Public()); err != nil {
		return nil, fmt.Errorf("%s: %w", keyKey, err)
	}
	if !issuer.IsCA || issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("%s may not sign certificates: it needs CA:TRUE and the usage keyCertSign", certKey)
	}
	roots := signing[len(signing)-1:]
	if len(data[rootKey]) > 0 {
		if roots, err = parseCerts(rootKey, data[rootKey]); err != nil {
			return nil, err
		}
		// An operator may leave an old root beside the new one; what has ended is trusted no more.
		current := slices.DeleteFunc(slices.Clone(roots), func(c *x509.Certificate) bool { return now.After(c.NotAfter) })
		if len(current) == 0 {
			return nil, inDate(rootKey, roots, now)
		}
		roots = current
	}
	between := x509.NewCertPool()
	for _, c := range signing[1:] {
		between.AddCert(c)
	}
	if len(data[chainKey]) > 0 {
		more, err := parseCerts(chainKey, data[chainKey])
		if err != nil {
			return nil, err
		}
		if err := inDate(chainKey, more, now); err != nil {
			return nil, err
		}
		for _, c := range more {
			between.AddCert(c)
		}
	}
	a := &Authority{key: key}
	trusted := x509.NewCertPool()
	for _, c := range roots {
		if !c.IsCA {
			return nil, fmt.Errorf("%s holds %s, which is no CA certificate", rootKey, c.Subject)
		}
		trusted.AddCert(c)
		a.certs = add(a.certs, c)
	}
	for _, c := range a.certs {
		a.roots = append(a.roots, encodePEM(c)...)
	}
	chains, err := issuer.Verify(x509.VerifyOptions{
		Roots: trusted, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("%s leads to no certificate of %s, not with those of %s either: %w", certKey, rootKey, chainKey, err)
	}
	a.chain = chains[0]
	return a, nil
}

// ParseRoots reads root certificates in PEM.
func ParseRoots(text string) ([]*x509.Certificate, error) { return parseCerts("roots", []byte(text)) }

// parseCerts reads the certificates of a file.
func parseCerts(name string, data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s holds a %s, want CERTIFICATE", name, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", name, len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 || len(bytes.TrimSpace(data)) > 0 {
		return nil, fmt.Errorf("%s is not a list of certificates in PEM", name)
	}
	return out, nil
}

// inDate complains of the first certificate of a file that is not valid at now.
func inDate(name string, certs []*x509.Certificate, now time.Time) error {
	for i, c := range certs {
		switch {
		case now.After(c.NotAfter):
			return fmt.Errorf("%s: certificate %d has expired on %s", name, i+1, c.NotAfter.Format(time.RFC3339))
		case now.Before(c.NotBefore):
			return fmt.Errorf("%s: certificate %d is not valid before %s", name, i+1, c.NotBefore.Format(time.RFC3339))
		}
	}
	return nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(data)
	if block != nil && block.Type == "EC PARAMETERS" { // as openssl writes before the key
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New("is not PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		err = errors.New("it is encrypted; give it without a passphrase")
	default:
		err = fmt.Errorf("holds a %s, want PRIVATE KEY", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("is a key that cannot sign")
	}
	return s, nil
}
