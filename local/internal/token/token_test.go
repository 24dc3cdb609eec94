package token

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var sleeper = Identity{
	Namespace: "default", Pod: &Bound{"sleep-1", "u1"}, Node: &Bound{Name: "node-2"}, ServiceAccount: Bound{"sleep", "u2"},
}

func open(t *testing.T, dir string) *Keys {
	t.Helper()
	k, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestIssuedTokensVerify(t *testing.T) {
	dir := t.TempDir()
	raw, err := open(t, dir).Issue(sleeper, "istio-ca", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, dir) // keys survive a restart
	got, err := again.Verify(raw, "istio-ca")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sleeper, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, f := range []string{"sa.key.json", "sa.jwks"} {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", f, st, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "sa.jwks")); err != nil || strings.Contains(string(b), `"d"`) {
		t.Errorf("the public file holds a private key, or %v", err)
	}
}

func TestOtherTokensDoNotVerify(t *testing.T) {
	k, stranger := open(t, t.TempDir()), open(t, t.TempDir())
	issue := func(k *Keys, aud string, ttl time.Duration) string {
		raw, err := k.Issue(sleeper, aud, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	good := issue(k, "istio-ca", time.Hour)
	for name, raw := range map[string]string{
		"another audience": issue(k, "vault", time.Hour),
		"expired":          issue(k, "istio-ca", -2*time.Minute),
		"another key":      issue(stranger, "istio-ca", time.Hour),
		"unsigned":         "eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".",
		"cut":              good[:len(good)-4],
		"empty":            "",
	} {
		if id, err := k.Verify(raw, "istio-ca"); err == nil {
			t.Errorf("%s: verified as %v", name, id)
		}
	}
}

func TestServerPKI(t *testing.T) {
	p, err := NewServerPKI([]string{"kubernetes.default.svc"}, []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{p.Certificate}}
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(p.RootPEM) {
		t.Fatal("no root in the PEM")
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	resp, err := c.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
