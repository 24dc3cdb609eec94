package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Names of the Secrets that hold an authority, and of the keys in them.
const (
	SelfSignedSecret = "istio-ca-secret" // made here
	PluggedSecret    = "cacerts"         // made by the operator; wins

	certKey  = "ca-cert.pem"
	keyKey   = "ca-key.pem"
	chainKey = "cert-chain.pem"
	rootKey  = "root-cert.pem"
)

// Secret is how the authority is kept.
func (a *Authority) Secret(namespace string) (*corev1.Secret, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("write the CA key: %w", err)
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: SelfSignedSecret, Namespace: namespace},
		Type:       "istio.io/ca-root",
		Data: map[string][]byte{
			certKey: encodePEM(a.issuer()),
			keyKey:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
			rootKey: a.roots,
		},
	}, nil
}

// FromSecret reads an authority and checks that it can do its work at now.
func FromSecret(s *corev1.Secret, now time.Time) (*Authority, error) {
	a, err := fromSecret(s.Data, now)
	if err != nil {
		return nil, fmt.Errorf("read CA from Secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	return a, nil
}

func fromSecret(data map[string][]byte, now time.Time) (*Authority, error) {
	key, err := parseKey(data[keyKey])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyKey, err)
	}
	signing, err := parseCerts(data[certKey])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certKey, err)
	}
	issuer := signing[0]
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(issuer.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", keyKey, certKey)
	}
	if !issuer.IsCA || issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("%s may not sign certificates", certKey)
	}
	roots := signing
	if len(data[rootKey]) > 0 {
		if roots, err = parseCerts(data[rootKey]); err != nil {
			return nil, fmt.Errorf("%s: %w", rootKey, err)
		}
	}
	between := x509.NewCertPool()
	for _, c := range signing[1:] {
		between.AddCert(c)
	}
	if len(data[chainKey]) > 0 {
		more, err := parseCerts(data[chainKey])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", chainKey, err)
		}
		for _, c := range more {
			between.AddCert(c)
		}
	}
	a := &Authority{key: key}
	trusted := x509.NewCertPool()
	for _, c := range roots {
		trusted.AddCert(c)
		a.roots = append(a.roots, encodePEM(c)...)
	}
	chains, err := issuer.Verify(x509.VerifyOptions{
		Roots: trusted, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("%s leads to no root: %w", certKey, err)
	}
	a.chain = chains[0]
	return a, nil
}

func parseCerts(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s, want CERTIFICATE", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 || len(bytes.TrimSpace(data)) > 0 {
		return nil, fmt.Errorf("is not a list of certificates in PEM")
	}
	return out, nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("is not PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("is a key that cannot sign")
	}
	return s, nil
}
