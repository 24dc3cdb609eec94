package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/api/l7"
)

const all = 1_000_000 // a share that is everything

func TestFaultsDelayAndAbort(t *testing.T) {
	at, received := web(t, func(http.ResponseWriter, *http.Request) {})
	b := start(t, nil)
	abort, delay, none, half := to("web", prefix("/abort")), to("web", prefix("/delay")), to("web", prefix("/none")), to("web", prefix("/half"))
	abort.Fault = &l7.Fault{AbortStatus: 555, AbortShare: all}
	delay.Fault = &l7.Fault{Delay: durationpb.New(150 * time.Millisecond), DelayShare: all}
	none.Fault = &l7.Fault{AbortStatus: 500, Delay: durationpb.New(time.Hour)} // of no request
	half.Fault = &l7.Fault{AbortStatus: 503, AbortShare: all / 2}
	grpc := to("web", prefix("/grpc"))
	grpc.Fault = &l7.Fault{GrpcStatus: proto.Uint32(14), AbortShare: all}
	b.apply(backend("web", at), route("*", abort, delay, none, half, grpc), listener(8080, "*"))
	c := browser(t)
	base := "http://" + b.at(8080)
	if got := get(t, c, base+"/abort", ""); got.status != 555 || got.body != "fault filter abort" {
		t.Errorf("abort: %d %q", got.status, got.body)
	}
	b.log.find(t, `/abort HTTP/1.1" 555 FI fault_filter_abort`)
	if n := received(); n != 0 {
		t.Errorf("the backend received %d bytes of an aborted request", n)
	}
	began := time.Now()
	if got := get(t, c, base+"/delay", ""); got.status != 200 || time.Since(began) < 150*time.Millisecond {
		t.Errorf("delay: %d after %s", got.status, time.Since(began))
	}
	b.log.find(t, `/delay HTTP/1.1" 200 DI via_upstream`)
	if got := get(t, c, base+"/none", ""); got.status != 200 {
		t.Errorf("none: %d", got.status)
	}
	aborted := 0
	for range 200 {
		if get(t, c, base+"/half", "").status == 503 {
			aborted++
		}
	}
	if aborted < 60 || aborted > 140 { // 5.6 standard deviations
		t.Errorf("%d of 200 requests were aborted, want about 100", aborted)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", base+"/grpc", nil)
	req.Header.Set("Content-Type", "application/grpc")
	if got := fetch(t, c, req); got.status != 200 || got.header.Get("Grpc-Status") != "14" || got.header.Get("Grpc-Message") != "fault filter abort" {
		t.Errorf("grpc: %d %v", got.status, got.header)
	}
}

func TestCallersOfGRPCReadFailuresAsStatus(t *testing.T) {
	b := start(t, nil)
	b.apply(backend("empty"), route("*", to("empty", prefix("/empty"))), listener(8080, "*"))
	for path, want := range map[string]string{"/empty": "14", "/none": "12"} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+b.at(8080)+path, nil)
		req.Header.Set("Content-Type", "application/grpc+proto")
		if got := fetch(t, browser(t), req); got.status != 200 || got.header.Get("Grpc-Status") != want {
			t.Errorf("%s: %d %v, want status %s of gRPC", path, got.status, got.header, want)
		}
	}
}

func TestCORS(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method) })
	b := start(t, nil)
	policy := func(forward bool) *l7.Cors {
		return &l7.Cors{
			Origins: []*l7.StringMatch{{Kind: &l7.StringMatch_Regex{Regex: `https://.*\.good\.test`}}, {Kind: &l7.StringMatch_Exact{Exact: "https://one.test"}}},
			Methods: []string{"GET", "PUT"}, Headers: []string{"x-a"}, Expose: []string{"x-b"}, MaxAge: durationpb.New(time.Hour), Credentials: true, ForwardUnmatched: forward,
		}
	}
	strict, lax := to("web", prefix("/strict")), to("web", prefix("/lax"))
	strict.Cors, lax.Cors = policy(false), policy(true)
	empty := to("none", prefix("/empty"))
	empty.Cors = policy(false)
	b.apply(backend("web", at), backend("none"), route("*", strict, lax, empty), listener(8080, "*"))
	for _, x := range []struct {
		method, path, origin string
		want                 string // status, body, allowed origin, methods, exposed
	}{
		{"OPTIONS", "/strict", "https://a.good.test", "200  https://a.good.test GET,PUT "},
		{"OPTIONS", "/strict", "https://evil.test", "200    "},
		{"OPTIONS", "/strict", "https://a.good.test.evil.test", "200    "}, // the whole origin must match
		{"OPTIONS", "/lax", "https://evil.test", "200 OPTIONS   "},
		{"GET", "/strict", "https://one.test", "200 GET https://one.test  x-b"},
		{"GET", "/strict", "https://evil.test", "200 GET   "},
		{"GET", "/strict", "", "200 GET   "},
		{"GET", "/empty", "https://one.test", "503 no healthy upstream https://one.test  x-b"},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), x.method, "http://"+b.at(8080)+x.path, nil)
		if x.origin != "" {
			req.Header.Set("Origin", x.origin)
		}
		if x.method == "OPTIONS" {
			req.Header.Set("Access-Control-Request-Method", "PUT")
		}
		a := fetch(t, browser(t), req)
		h := func(n string) string { return a.header.Get("Access-Control-" + n) }
		if got := fmt.Sprintf("%d %s %s %s %s", a.status, a.body, h("Allow-Origin"), h("Allow-Methods"), h("Expose-Headers")); got != x.want {
			t.Errorf("%s %s from %q: %q, want %q", x.method, x.path, x.origin, got, x.want)
		}
	}
}

// RT-24: a copy that is slow, refused or cut changes nothing for the one who asked.
func TestRT24MirrorsDoNotTouchTheAnswer(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "main %d", n)
	})
	type seen struct{ host, path, body string }
	copies := make(chan seen, 8)
	good, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // fell too far behind
		}
		copies <- seen{r.Host, r.URL.Path, string(body)}
		http.Error(w, "leak", http.StatusTeapot)
	})
	var stuck atomic.Int64
	over := make(chan struct{})
	slow, _ := web(t, func(http.ResponseWriter, *http.Request) { stuck.Add(1); <-over })
	t.Cleanup(func() { close(over) })
	cut, _ := web(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	b := start(t, nil)
	rule := to("web", prefix("/a"))
	rule.Rewrite = &l7.Rewrite{PathKind: &l7.Rewrite_Prefix{Prefix: "/b"}}
	for _, m := range []string{"good", "slow", "cut", "empty"} {
		rule.Mirrors = append(rule.Mirrors, &l7.Mirror{Backend: m, Share: all})
	}
	b.apply(backend("web", at), backend("good", good), backend("slow", slow), backend("cut", cut), backend("empty"), route("*", rule), listener(8080, "*"))
	for _, n := range []int{0, 10, 50 << 10, 4 << 20} { // the last one is more than a slow copy may be behind
		body := strings.Repeat("x", n)
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+b.at(8080)+"/a", strings.NewReader(body))
		req.Host = "shop.test"
		began := time.Now()
		got := fetch(t, browser(t), req)
		if want := fmt.Sprintf("main %d", n); got.status != 200 || got.body != want || time.Since(began) > 5*time.Second {
			t.Errorf("%d bytes: %d %q after %s, want %q", n, got.status, got.body, time.Since(began), want)
		}
		if n > 64<<10 {
			continue
		}
		select {
		case s := <-copies:
			if (s != seen{"shop.test-shadow", "/b", body}) {
				t.Errorf("copy of %d bytes: host %s, path %s, %d bytes", n, s.host, s.path, len(s.body))
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no copy of %d bytes came", n)
		}
	}
	if stuck.Load() == 0 {
		t.Error("the slow mirror was never asked")
	}
	if strings.Contains(b.log.all(), `" 418 `) {
		t.Error("a mirror's answer is in the access log")
	}
}

// The share of a backend that cannot be had is answered 500, and nobody else gets it.
func TestAShareWithoutABackendIsAnswered500(t *testing.T) {
	at, received := web(t, func(http.ResponseWriter, *http.Request) {})
	b := start(t, nil)
	nowhere, half := to("", prefix("/nowhere")), to("web", prefix("/half"))
	half.GetForward().Destinations = append(half.GetForward().Destinations, &l7.Destination{Weight: 1})
	b.apply(backend("web", at), route("*", nowhere, half), listener(8080, "*"))
	c := browser(t)
	if got := get(t, c, "http://"+b.at(8080)+"/nowhere", ""); got.status != 500 || received() != 0 {
		t.Errorf("nowhere: %d", got.status)
	}
	seen := map[int]int{}
	for range 100 {
		seen[get(t, c, "http://"+b.at(8080)+"/half", "").status]++
	}
	if seen[200]+seen[500] != 100 || seen[200] < 20 || seen[500] < 20 {
		t.Errorf("half: %v", seen)
	}
}
