package admin

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/telemetry"
)

func TestPages(t *testing.T) {
	var ready lifecycle.Readiness
	done := ready.Add("xds")
	ready.Add("pods")()
	levels, err := telemetry.ParseLevels("info")
	if err != nil {
		t.Fatal(err)
	}
	quit := make(chan struct{})
	c := Config{
		Name: "ztunnel", Ready: &ready, Metrics: telemetry.NewMetrics("ztunnel", "v").Handler(), Levels: levels,
		Dump: func() any { return map[string]int{"workloads": 1} }, Quit: func() { close(quit) },
	}
	on, err := Listen(t.Context(), "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, c, on) }()
	admin, metrics, readiness := on.Admin.Addr().String(), on.Metrics.Addr().String(), on.Readiness.Addr().String()

	do := func(method, url string, header ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
			if header[i] == "Host" {
				req.Host = header[i+1]
			}
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	expect := func(method, url string, status int, text string, header ...string) {
		t.Helper()
		if got, body := do(method, url, header...); got != status || !strings.Contains(body, text) {
			t.Errorf("%s %s = %d %q, want %d with %q", method, url, got, body, status, text)
		}
	}
	expect("GET", readiness+"/healthz/ready", 500, "not ready, pending: xds")
	done()
	expect("GET", readiness+"/healthz/ready", 200, "ready")
	expect("GET", readiness+"/metrics", 404, "")
	expect("GET", metrics+"/metrics", 200, "istio_build")
	expect("GET", metrics+"/stats/prometheus", 200, "istio_build")
	expect("GET", metrics+"/config_dump", 404, "")
	expect("GET", admin+"/", 200, "/config_dump")
	expect("GET", admin+"/config_dump", 200, `"workloads": 1`)
	expect("GET", admin+"/debug/pprof/heap?debug=1", 200, "heap profile")
	expect("GET", admin+"/logging?level=debug", 405, "")
	expect("POST", admin+"/logging?level=debug,access=off", 200, "current log level is debug,access=off")
	expect("POST", admin+"/logging?level=loud", 400, "loud")
	expect("POST", admin+"/logging?reset", 200, "current log level is info")
	expect("GET", admin+"/config_dump", 403, "localhost", "Host", "evil.example")
	expect("POST", admin+"/quitquitquit", 403, "other sites", "Origin", "https://evil.example")
	expect("POST", admin+"/quitquitquit", 200, "shutdown")
	<-quit
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run() = %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Run() did not return")
	}
}
