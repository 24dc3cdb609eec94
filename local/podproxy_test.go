package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestRequestsReachThePodsOwnLoopback(t *testing.T) {
	pod := netnstest.New(t)
	l, err := sock.Listen(pod, netip.MustParseAddrPort("127.0.0.1:15000"), sock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	debug := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s host=%s from=%s", r.Method, r.URL, r.Host, netip.MustParseAddrPort(r.RemoteAddr).Addr())
	})}
	go func() { _ = debug.Serve(l) }()
	defer debug.Close()

	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/namespaces/{namespace}/pods/{pod}/proxy/{path...}", podProxy(func(namespace, name string) (*netns.Namespace, error) {
		if namespace+"/"+name != "istio-system/ztunnel" {
			return nil, errors.New("no such pod")
		}
		return pod.Dup()
	}))
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/ztunnel:15000/proxy/config_dump?a=b", 200, "GET /config_dump?a=b host=localhost:15000 from=127.0.0.1"},
		{"POST", "/ztunnel:15000/proxy/logging?level=debug", 200, "POST /logging?level=debug host=localhost:15000 from=127.0.0.1"},
		{"GET", "/ztunnel/proxy/config_dump", 400, "\"ztunnel\": write the pod as NAME:PORT\n"},
		{"GET", "/ztunnel:70000/proxy/", 400, "\"ztunnel:70000\": write the pod as NAME:PORT\n"},
		{"GET", "/other:15000/proxy/", 404, "no such pod\n"},
		{"GET", "/ztunnel:15001/proxy/", 502, ""},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(context.Background(), c.method, "/api/v1/namespaces/istio-system/pods"+c.path, http.NoBody)
		mux.ServeHTTP(w, r)
		got, err := io.ReadAll(w.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		if w.Code != c.status || c.want != "" && string(got) != c.want {
			t.Errorf("%s %s = %d %q, want %d %q", c.method, c.path, w.Code, got, c.status, c.want)
		}
	}
}
