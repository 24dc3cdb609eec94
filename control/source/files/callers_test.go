package files

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ambit-mesh/ambit/control/source"
)

// issuer signs tokens and publishes its key.
type issuer struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	id   string
	path string
}

func newIssuer(t testing.TB, path, id string) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{t: t, key: key, id: id, path: path}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: id, Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := put(path, set, os.Rename); err != nil {
		t.Fatal(err)
	}
	return i
}

func (i *issuer) sign(c map[string]any) string {
	i.t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: i.id}}, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(c).Serialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

func good() map[string]any {
	return map[string]any{
		"aud": []string{"istio-ca"}, "sub": "system:serviceaccount:default:web", "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": "default", "serviceaccount": map[string]string{"name": "web", "uid": "s"},
			"pod": map[string]string{"name": "web-1", "uid": "p"}, "node": map[string]string{"name": "n1"},
		},
	}
}

// CA-01, CA-02: only whole, current tokens for this audience count.
func TestTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sa.jwks")
	i := newIssuer(t, path, "k1")
	c := NewCallers(path, "istio-ca")
	got, err := c.Verify(t.Context(), i.sign(good()))
	want := source.Caller{Namespace: "default", ServiceAccount: "web", Pod: "web-1", PodUID: "p", Node: "n1"}
	if err != nil || got != want {
		t.Fatalf("Verify = %+v, %v, want %+v", got, err, want)
	}
	change := func(key string, value any) string {
		m := maps.Clone(good())
		if m[key] = value; value == nil {
			delete(m, key)
		}
		return i.sign(m)
	}
	stranger := newIssuer(t, filepath.Join(t.TempDir(), "other"), "k1")
	secret, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(strings.Repeat("k", 32))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	symmetric, err := jwt.Signed(secret).Claims(good()).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	whole := i.sign(good())
	for name, token := range map[string]string{
		"nothing":                      "",
		"garbage":                      "a.b.c",
		"too long":                     strings.Repeat("a", maxToken+1),
		"another audience":             change("aud", []string{"vault"}),
		"no audience":                  change("aud", nil),
		"ended":                        change("exp", time.Now().Add(-time.Minute).Unix()),
		"without an end":               change("exp", nil),
		"not yet":                      change("nbf", time.Now().Add(time.Hour).Unix()),
		"subject of another account":   change("sub", "system:serviceaccount:default:admin"),
		"no account":                   change("kubernetes.io", nil),
		"key of a stranger":            stranger.sign(good()),
		"symmetric key":                symmetric,
		"no signature":                 whole[:strings.LastIndexByte(whole, '.')+1],
		"algorithm none":               "eyJhbGciOiJub25lIn0." + strings.Split(whole, ".")[1] + ".",
		"a name that leaves its place": change("kubernetes.io", map[string]any{"namespace": "a/../b", "serviceaccount": map[string]string{"name": "web"}}),
	} {
		if got, err := c.Verify(t.Context(), token); err == nil || got != (source.Caller{}) {
			t.Errorf("%s: Verify = %+v, %v", name, got, err)
		}
	}
}

func TestKeysAreReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sa.jwks")
	old := newIssuer(t, path, "k1")
	c := NewCallers(path, "istio-ca")
	if _, err := c.Verify(t.Context(), old.sign(good())); err != nil {
		t.Fatal(err)
	}
	next := newIssuer(t, path, "k2-with-a-longer-name")
	if _, err := c.Verify(t.Context(), next.sign(good())); err != nil {
		t.Errorf("token of the new key: %v", err)
	}
	if _, err := c.Verify(t.Context(), old.sign(good())); err == nil {
		t.Error("token of the key that was taken away is good")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Verify(t.Context(), next.sign(good())); err == nil {
		t.Error("a token is good without keys")
	}
}

func FuzzVerify(f *testing.F) {
	path := filepath.Join(f.TempDir(), "sa.jwks")
	i := newIssuer(f, path, "k1")
	c := NewCallers(path, "istio-ca")
	whole := i.sign(good())
	f.Add(whole)
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		if got, err := c.Verify(t.Context(), token); err == nil && token != whole {
			// Base64url lets the last character of a signature vary; the claims must be the signed ones all the same.
			if !strings.HasPrefix(token, whole[:strings.LastIndexByte(whole, '.')]) {
				t.Fatalf("forged: %+v", got)
			}
		}
	})
}
