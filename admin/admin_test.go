package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

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
		Dump: Value(func() any { return map[string]int{"workloads": 1} }), Quit: func() { close(quit) },
		Pages: map[string]Page{"/why": {About: "why <it> is so", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "because") })}},
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
	for _, text := range []string{"/config_dump", "why &lt;it&gt; is so", "It is ready.", "It logs info.", "curl -X POST localhost:15000/logging"} {
		expect("GET", admin+"/", 200, text)
	}
	expect("GET", admin+"/why", 200, "because")
	expect("POST", admin+"/why", 405, "")
	expect("GET", admin+"/debug/pprof/cmdline", 404, "") // may hold what was meant for the program alone
	expect("GET", admin+"/config_dump", 200, `"workloads": 1`)
	expect("GET", admin+"/debug/pprof/heap?debug=1", 200, "heap profile")
	expect("GET", admin+"/logging", 200, "current log level is info")
	expect("GET", admin+"/logging?level=debug", 405, "curl -X POST")
	expect("GET", admin+"/logging?reset", 405, "curl -X POST")
	expect("POST", admin+"/logging", 200, "current log level is info")
	expect("POST", admin+"/logging?level=debug,access=off", 200, "current log level is access=off,debug")
	expect("POST", admin+"/logging?level=dns=trace", 200, "current log level is access=off,dns=trace,debug")
	expect("POST", admin+"/logging?reset&level=loud", 400, "loud")
	expect("POST", admin+"/logging", 200, "current log level is access=off,dns=trace,debug")
	expect("POST", admin+"/logging?reset", 200, "current log level is info")
	expect("GET", admin+"/config_dump", 403, "localhost", "Host", "evil.example")
	expect("GET", admin+"/config_dump", 403, "localhost", "Host", "127.0.0.1.evil.example:15000")
	expect("GET", admin+"/config_dump", 403, "localhost", "Host", "169.254.169.254")
	expect("GET", admin+"/config_dump", 200, "workloads", "Host", "localhost:15000")
	expect("GET", admin+"/config_dump", 200, "workloads", "Host", "[::1]:15000")
	expect("GET", admin+"/config_dump", 403, "other sites", "Sec-Fetch-Site", "cross-site")
	expect("POST", admin+"/quitquitquit", 403, "other sites", "Origin", "https://evil.example")
	expect("POST", admin+"/quitquitquit", 403, "other sites", "Origin", "http://localhost:3000") // another program of this machine
	expect("POST", admin+"/logging", 200, "current", "Origin", "http://"+admin)
	expect("GET", admin+"/quitquitquit", 405, "")
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

func TestQuitIsForThisMachineAlone(t *testing.T) {
	c := Config{Quit: func() { t.Error("ended by another machine") }, Ready: &lifecycle.Readiness{}}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost:15000/quitquitquit", nil)
	r.RemoteAddr = "10.0.0.7:40000"
	w := httptest.NewRecorder()
	c.adminPages().ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("%d, want 403", w.Code)
	}
}

// A dump that fails in the middle does not look whole.
func TestBrokenDumpIsSeenAsSuch(t *testing.T) {
	c := Config{Ready: &lifecycle.Readiness{}, Dump: func(w io.Writer) error {
		_, _ = w.Write(make([]byte, 1<<20)) // what comes next counts
		return errors.New("out of ink")
	}}
	s := httptest.NewServer(c.adminPages())
	defer s.Close()
	resp, err := s.Client().Get(s.URL + "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("the reader takes it for whole")
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
