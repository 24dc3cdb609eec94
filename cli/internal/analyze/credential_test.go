package analyze_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// pair makes a certificate and its key, as PEM.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}, &x509.Certificate{}, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, b []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return text("CERTIFICATE", der), text("PRIVATE KEY", private)
}

func TestCertificatesOfGateways(t *testing.T) {
	cert, key := pair(t)
	_, other := pair(t)
	for _, c := range []struct{ name, mode, data, want string }{
		{"sound", "SIMPLE", fmt.Sprintf("{tls.crt: %s, tls.key: %s}", cert, key), ""},
		{"no key", "SIMPLE", fmt.Sprintf("{tls.crt: %s}", cert), "Secret cert: it has no tls.key"},
		{"another's key", "SIMPLE", fmt.Sprintf("{tls.crt: %s, tls.key: %s}", cert, other), "private key does not match"},
		{"no certificate", "SIMPLE", fmt.Sprintf("{tls.crt: aGVsbG8=, tls.key: %s}", key), "failed to find any PEM data"},
		{"nobody to trust", "MUTUAL", fmt.Sprintf("{tls.crt: %s, tls.key: %s}", cert, key), "it has no ca.crt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			yaml := strings.Replace(sound, "port: {name: http, number: 80, protocol: HTTP}", "port: {name: s, number: 80, protocol: HTTPS}\n      tls: {mode: "+c.mode+", credentialName: cert}", 1) +
				"---\n{apiVersion: v1, kind: Secret, metadata: {name: cert, namespace: istio-system}, data: " + c.data + "}\n"
			got := messages(t, yaml, false)
			if c.want == "" && got != "" || c.want != "" && (!strings.Contains(got, "Error [IST0161] (Gateway gw.a t.yaml:46)") || !strings.Contains(got, c.want)) {
				t.Errorf("want %q, got\n%s", c.want, got)
			}
			if strings.Contains(got, key) || strings.Contains(got, "PRIVATE") {
				t.Error("UI-05 a key is in the finding")
			}
		})
	}
}
