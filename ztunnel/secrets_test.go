package ztunnel_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-mesh/ambit/admin"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel"
)

// authority is a CA without a network. It keeps the keys that it has given out.
type authority struct {
	ca   *fakeca.CA
	mu   *sync.Mutex // guards keys
	keys *[]*ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	return authority{fakeca.New(t), &sync.Mutex{}, &[]*ecdsa.PrivateKey{}}
}

func (a authority) Issue(_ context.Context, id identity.ID) (certs.Issued, error) {
	s := a.ca.Issue(id)
	if k, ok := s.Key.(*ecdsa.PrivateKey); ok {
		a.mu.Lock()
		*a.keys = append(*a.keys, k)
		a.mu.Unlock()
	}
	return certs.Issued{SVID: s, Roots: []*x509.Certificate{a.ca.Root()}}, nil
}

// shapes are the forms in which a key could be seen.
func shapes(t *testing.T, k *ecdsa.PrivateKey) map[string][]byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	d, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{
		"bytes": d, "hexadecimal": []byte(hex.EncodeToString(d)), "HEXADECIMAL": []byte(strings.ToUpper(hex.EncodeToString(d))),
		"decimal": []byte(fmt.Sprint(d))[1:60], "PEM": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})[30:80],
		"a JSON string": []byte(base64.StdEncoding.EncodeToString(d))[:40], "a URL": []byte(base64.RawURLEncoding.EncodeToString(d))[:40],
	}
	// Base64 of something that holds the key shows it at one of three offsets.
	for i := range 3 {
		out[fmt.Sprint("base64 at ", i)] = []byte(base64.StdEncoding.EncodeToString(d[i:]))[:36]
	}
	return out
}

// searchForKeys looks at all that the debug server shows while the keys are in use, and at the log.
func searchForKeys(t *testing.T, z *ztunnel.Ztunnel, ready *lifecycle.Readiness, metrics *telemetry.Metrics, log string, a authority) { // CA-17
	t.Helper()
	levels, err := telemetry.ParseLevels("info")
	if err != nil {
		t.Fatal(err)
	}
	on, err := admin.Listen(t.Context(), "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- admin.Run(ctx, admin.Config{
			Name: "ztunnel", Ready: ready, Metrics: metrics.Handler(), Levels: levels, Pages: z.Pages(),
			Dump: func(w io.Writer) error { return z.WriteDump(w, "test") },
		}, on)
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	seen := map[string][]byte{"the log": []byte(log)}
	for _, path := range []string{
		"/", "/config_dump", "/metrics", "/logging", "/explain?from=default/a&to=10.0.0.2:9080", "/explain?at=default/b&from=10.0.0.1&to=10.0.0.2:9080", "/last",
		"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/heap?debug=1", "/debug/pprof/goroutine?debug=2", "/debug/pprof/allocs", "/debug/pprof/cmdline", "/debug/pprof/symbol",
	} {
		resp, err := client.Get("http://" + on.Admin.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if r, err := gzip.NewReader(bytes.NewReader(b)); err == nil { // a profile
			if b, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
		seen[path] = b
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(*a.keys) < 2 || !bytes.Contains(seen["/config_dump"], []byte("sa/a")) || len(seen["/debug/pprof/heap"]) == 0 {
		t.Fatalf("%d keys; the search would prove nothing", len(*a.keys))
	}
	for where, b := range seen {
		for _, k := range *a.keys {
			for shape, secret := range shapes(t, k) {
				if bytes.Contains(b, secret) {
					t.Errorf("%s shows a private key as %s", where, shape)
				}
			}
		}
	}
}
