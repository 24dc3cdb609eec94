package kubeapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// pki is what an API server and its administrator show each other.
type pki struct {
	dir                 string
	ca, admin, adminKey []byte // PEM
	authority           *x509.Certificate
	key                 *ecdsa.PrivateKey
}

func (p pki) path(name string) string { return filepath.Join(p.dir, name) }

func newPKI(dir string) (p pki, err error) {
	p.dir = dir
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return p, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, p.key.Public(), p.key)
	if err != nil {
		return p, err
	}
	if p.authority, err = x509.ParseCertificate(der); err != nil {
		return p, err
	}
	p.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	server, serverKey, err := p.sign(pkix.Name{CommonName: "kube-apiserver"}, "localhost", "kubernetes", "kubernetes.default.svc")
	if err != nil {
		return p, err
	}
	if p.admin, p.adminKey, err = p.sign(pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}); err != nil {
		return p, err
	}
	accounts, err := newKey()
	if err != nil {
		return p, err
	}
	for name, data := range map[string][]byte{"ca.crt": p.ca, "server.crt": server, "server.key": serverKey, "accounts.key": accounts.pem} {
		if err := os.WriteFile(p.path(name), data, 0o600); err != nil {
			return p, err
		}
	}
	return p, nil
}

type key struct {
	*ecdsa.PrivateKey
	pem []byte
}

func newKey() (key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return key{}, err
	}
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return key{}, err
	}
	return key{k, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})}, nil
}

func (p pki) sign(who pkix.Name, names ...string) (cert, private []byte, err error) {
	k, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: who, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if len(names) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.authority, k.Public(), p.key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), k.pem, nil
}

func (p pki) kubeconfig(dir, server string) (string, error) {
	text := func(data []byte) string { return base64.StdEncoding.EncodeToString(data) }
	path := filepath.Join(dir, "kubeconfig")
	return path, os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: admin}}]
clusters: [{name: test, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: admin, user: {client-certificate-data: %s, client-key-data: %s}}]
`, server, text(p.ca), text(p.admin), text(p.adminKey)), 0o600)
}
