package podwatch_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeapi"
	"github.com/ambit-mesh/ambit/node/internal/podwatch"
)

func TestTokenOf(t *testing.T) {
	s := fakeapi.Start(t)
	c := client(t, s)
	s.Issue(fakeapi.Issue{Namespace: "system", Account: "plugin", Most: time.Hour})
	token, ends, err := c.TokenOf(t.Context(), "system", "plugin", 24*time.Hour)
	if left := time.Until(ends); err != nil || left > time.Hour || left < 50*time.Minute {
		t.Fatalf("%q until %v, %v", token, ends, err)
	}
	must(t, c.Serves(t.Context(), token, "system"))
	s.Issue(fakeapi.Issue{Namespace: "system", Account: "plugin", Powerless: true})
	if err := c.Serves(t.Context(), token, "system"); !podwatch.Refused(err) {
		t.Errorf("without rights: %v", err)
	}
	s.Revoke(token)
	if err := c.Serves(t.Context(), token, "system"); !podwatch.Refused(err) {
		t.Errorf("revoked: %v", err)
	}
	if _, _, err := c.TokenOf(t.Context(), "system", "other", time.Hour); !podwatch.NotFound(err) || podwatch.Refused(err) {
		t.Errorf("of nobody: %v", err)
	}
	for answer, why := range map[string]string{
		`{"status":{"token":"a.b.c","expirationTimestamp":"2001-01-01T00:00:00Z"}}`:           "ended at 2001",
		`{"status":{"expirationTimestamp":"2099-01-01T00:00:00Z"}}`:                           "holds none",
		`{"status":{"token":"a\r\nX: y","expirationTimestamp":"2099-01-01T00:00:00Z"}}`:       "holds none",
		`{"status":{"token":"a.b.c"}}`:                                                        "ended at",
		`{"status":{"token":"a.b.c","expirationTimestamp":"soon"}}`:                           "soon",
		`{"status":{"token":"` + strings.Repeat("a", 2<<20) + `","expirationTimestamp":"x"}}`: "EOF",
		`{}`: "holds none",
		``:   "EOF",
	} {
		s.Hook(func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write([]byte(answer)); return true })
		if token, _, err := c.TokenOf(t.Context(), "system", "plugin", time.Hour); token != "" || err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.80s: %.20q, %v; want an error that says %q", answer, token, err, why)
		}
	}
}
