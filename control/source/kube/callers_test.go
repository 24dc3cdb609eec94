package kube_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/peer"
	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kube"
	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
)

func callers(t testing.TB, rc *rest.Config) *kube.Callers {
	t.Helper()
	c, err := kube.NewCallers(rc, "istio-ca")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func from(t testing.TB, ip string) context.Context {
	return peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}})
}

// CA-01, CA-02, CA-14: whose token it is the API server says; it is not asked about garbage, nor twice, nor without bound,
// and while it does not answer nobody comes in.
func TestCallers(t *testing.T) {
	api := kubeapi.Start(t)
	api.Apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: default}\n---\n" + pod("web-1", "10.0.0.7"))
	reviews, broken := &atomic.Int64{}, &atomic.Bool{}
	count := &faulty{}
	count.set(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/tokenreviews") {
			reviews.Add(1)
			if broken.Load() {
				return refusal(r, 500, "InternalError"), nil
			}
		}
		return nil, nil
	})
	c := callers(t, count.config(api.Config))
	token := api.Token("default", "web", "web-1", "istio-ca", time.Hour)
	uid := string(api.Get("v1", "Pod", "default", "web-1").GetUID())

	t.Run("a pod's own token, asked about once", func(t *testing.T) {
		want := source.Caller{Namespace: "default", ServiceAccount: "web", Pod: "web-1", PodUID: uid}
		for range 5 {
			got, err := c.Verify(from(t, "10.0.0.7"), token)
			got.Node = "" // only newer servers say it
			if err != nil || got != want {
				t.Fatalf("Verify = %+v, %v, want %+v", got, err, want)
			}
		}
		if n := reviews.Load(); n != 1 {
			t.Errorf("%d reviews", n)
		}
	})
	t.Run("what is no token for us is not worth a question", func(t *testing.T) {
		before := reviews.Load()
		parts := strings.Split(token, ".")
		for name, bad := range map[string]string{
			"nothing": "", "garbage": "a.b.c", "long": strings.Repeat("a", 1<<20), "no signature": parts[0] + "." + parts[1] + ".",
			"another audience": api.Token("default", "web", "web-1", "vault", time.Hour),
			"not JSON":         parts[0] + ".AAAA." + parts[2],
		} {
			if got, err := c.Verify(from(t, "10.0.0.7"), bad); err == nil || got != (source.Caller{}) {
				t.Errorf("%s: Verify = %+v, %v", name, got, err)
			}
		}
		if n := reviews.Load(); n != before {
			t.Errorf("%d reviews", n-before)
		}
	})
	t.Run("forged tokens of one address are not looked at without bound, and others are not held up", func(t *testing.T) {
		before := reviews.Load()
		parts := strings.Split(token, ".")
		for i := range 300 {
			forged := fmt.Sprintf("%s.%s.%s%04d", parts[0], parts[1], parts[2][:len(parts[2])-4], i)
			if got, err := c.Verify(from(t, "10.9.9.9"), forged); err == nil || got != (source.Caller{}) {
				t.Fatalf("Verify = %+v, %v", got, err)
			}
		}
		if n := reviews.Load() - before; n < 10 || n > 200 {
			t.Errorf("%d reviews of 300 forged tokens", n)
		}
		if _, err := c.Verify(from(t, "10.0.0.8"), api.Token("default", "web", "web-1", "istio-ca", time.Hour)); err != nil {
			t.Errorf("another address: %v", err)
		}
	})
	t.Run("while the API server does not answer nobody comes in, and then at once", func(t *testing.T) {
		fresh := api.Token("default", "web", "web-1", "istio-ca", 2*time.Hour)
		broken.Store(true)
		if got, err := c.Verify(from(t, "10.0.0.7"), fresh); err == nil || got != (source.Caller{}) {
			t.Errorf("Verify = %+v, %v", got, err)
		}
		broken.Store(false)
		if _, err := c.Verify(from(t, "10.0.0.7"), fresh); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
	t.Run("a token whose pod is gone", func(t *testing.T) {
		late := api.Token("default", "web", "web-1", "istio-ca", 3*time.Hour)
		api.Delete("v1", "Pod", "default", "web-1")
		eventually(t, "it is refused", func() bool {
			_, err := callers(t, api.Config).Verify(from(t, "10.0.0.7"), late)
			return err != nil
		})
	})
}

func FuzzCallers(f *testing.F) {
	c, err := kube.NewCallers(&rest.Config{Host: "https://127.0.0.1:1"}, "istio-ca")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a.b.c")
	f.Add("e30.eyJhdWQiOiJpc3Rpby1jYSIsInN1YiI6InN5c3RlbTpzZXJ2aWNlYWNjb3VudDphOmIiLCJleHAiOjFlMzA4fQ.x")
	f.Fuzz(func(t *testing.T, token string) {
		if got, err := c.Verify(from(t, "10.0.0.1"), token); err == nil {
			t.Errorf("%q is %+v", token, got)
		}
	})
}
