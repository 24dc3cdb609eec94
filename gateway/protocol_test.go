package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/api/l7"
)

// h2c is a client of HTTP/2 without TLS.
func h2c(t *testing.T) *http.Client {
	tr := &http.Transport{Protocols: &http.Protocols{}}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// RT-08: bytes flow freely only after a proper 101.
func TestRT08OnlyAProper101IsATunnel(t *testing.T) {
	answers := map[string]string{
		"/200":      "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
		"/smuggled": "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		"/none":     "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"/other":    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
		"/unasked":  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	}
	var smuggled atomic.Int64
	at := server(t, func(c *net.TCPConn) {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		io.WriteString(c, answers[r.URL.Path]) //nolint:errcheck // seen by the client
		if n, _ := io.Copy(io.Discard, c); n > 0 {
			smuggled.Add(n)
		}
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	for path, want := range map[string]string{"/200": "200", "/none": "50", "/other": "502", "/unasked": "502"} {
		upgrade := "Connection: Upgrade\r\nUpgrade: websocket\r\n"
		if path == "/unasked" {
			upgrade = ""
		}
		got := raw(t, b.at(8080), "GET "+path+" HTTP/1.1\r\nHost: a\r\n"+upgrade+"\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 "+want) || path != "/unasked" && strings.Count(got, "HTTP/1.1 ") != 1 {
			t.Errorf("%s: answer %.300q, want one %s", path, got, want)
		}
	}
	if n := smuggled.Load(); n != 0 {
		t.Errorf("%d bytes passed through to the backend without a tunnel", n)
	}
}

// L7-25: what a rule does not let through is refused before any switch.
func TestUpgradeOnAPathThatLeadsNowhere(t *testing.T) {
	at, received := web(t, echo)
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web", prefix("/ws"))), listener(8080, "*"))
	if got := raw(t, b.at(8080), "GET /admin HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 404 ") {
		t.Errorf("answer %.80q", got)
	}
	if n := received(); n != 0 {
		t.Errorf("the backend received %d bytes", n)
	}
}

func TestOldAndSpecialWaysOfHTTP1(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Length", fmt.Sprint(len(body)))
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "hello")
		if r.URL.Path == "/trailer" {
			w.(http.Flusher).Flush()
			w.Header().Set("X-Sum", "5")
		}
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	for name, c := range map[string]struct {
		message string
		want    []string
		not     string
	}{
		"HTTP/1.0":               {"GET / HTTP/1.0\r\nHost: a\r\n\r\n", []string{"200 OK", "Connection: close", "\r\n\r\nhello"}, "chunked"},
		"HTTP/1.0 without host":  {"GET / HTTP/1.0\r\n\r\n", []string{"200 OK"}, "chunked"},
		"HEAD":                   {"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", []string{"200 OK", "X-Length: 0"}, "hello"},
		"trailers of a response": {"GET /trailer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", []string{"Transfer-Encoding: chunked", "0\r\nX-Sum: 5\r\n\r\n"}, "Trailer: X-Sum\r\nX-Sum"},
		"trailers of a request":  {"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", []string{"X-Length: 3"}, ""},
		"absolute target":        {"GET http://a/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", []string{"200 OK"}, ""},
		"OPTIONS *":              {"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", []string{"400 "}, "200"},
	} {
		got := raw(t, b.at(8080), c.message)
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %q has no %q", name, got, w)
			}
		}
		if c.not != "" && strings.Contains(got, c.not) {
			t.Errorf("%s: %q has %q", name, got, c.not)
		}
	}
	// A client that asks first sends its body only when told to.
	c := dialled(t, b.at(8080))
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n") //nolint:errcheck // seen below
	br := bufio.NewReader(c)
	if line, err := br.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	io.WriteString(c, "abc") //nolint:errcheck // as above
	if rest, _ := io.ReadAll(br); !strings.Contains(string(rest), "X-Length: 3") {
		t.Errorf("after the body: %q", rest)
	}
	if got := raw(t, b.at(8080), "POST / HTTP/1.1\r\nHost: a/b\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"); strings.Contains(got, "100 Continue") || !strings.Contains(got, " 400 ") {
		t.Errorf("a refused request: %q", got) // and no body was asked for
	}
}

// gRPC: messages go both ways as they come, its status comes in trailers, and both are counted.
func TestGRPCStreamsWithTrailers(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Te") != "trailers" || r.ProtoMajor != 2 {
			t.Errorf("te %q, protocol %s", r.Header.Get("Te"), r.Proto)
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		buf := make([]byte, 8)
		for {
			if _, err := io.ReadFull(r.Body, buf); err != nil {
				break
			}
			w.Write(buf) //nolint:errcheck // seen by the client
			w.(http.Flusher).Flush()
		}
		w.Header().Set("Grpc-Status", "5")
	})
	reg := prometheus.NewRegistry()
	b := start(t, func(c *Config) { c.Metrics = reg })
	x := backend("web", at)
	x.Protocol = l7.AppProtocol_HTTP2
	x.Endpoints[0].Workload = &l7.WorkloadLabels{Name: "web-v1", Namespace: "default", App: "web", Version: "v1", CanonicalName: "web", CanonicalRevision: "v1", Cluster: "k"}
	b.apply(x, route("*", to("web")), listener(8080, "*"))
	pr, pw := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+b.at(8080)+"/pkg.Svc/Both", pr)
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	go pw.Write([]byte("\x00\x00\x00\x00\x03one")) //nolint:errcheck // seen in the answer
	resp, err := h2c(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i := range 3 {
		got := make([]byte, 8)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got[5:]) != "one" {
			t.Fatalf("message %q, %v", got, err)
		}
		if i < 2 {
			go pw.Write([]byte("\x00\x00\x00\x00\x03one")) //nolint:errcheck // as above
		}
	}
	pw.Close()
	if _, err := io.ReadAll(resp.Body); err != nil || resp.Trailer.Get("Grpc-Status") != "5" {
		t.Errorf("status of gRPC %q, %v", resp.Trailer.Get("Grpc-Status"), err)
	}
	b.log.find(t, `"POST /pkg.Svc/Both HTTP/2.0" 200 - via_upstream`)
	for name, want := range map[string]float64{"istio_requests_total": 1, "istio_request_messages_total": 3, "istio_response_messages_total": 3} {
		all := gathered(t, reg, name)
		if len(all) != 1 || all[0].GetCounter().GetValue() != want {
			t.Errorf("%s: %v, want %v", name, all, want)
			continue
		}
		labels := map[string]string{}
		for _, l := range all[0].GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		for k, v := range map[string]string{
			"reporter": "source", "request_protocol": "grpc", "response_code": "200", "grpc_response_status": "5", "destination_workload": "web-v1",
			"destination_app": "web", "destination_version": "v1", "destination_service": "web.default.svc.cluster.local", "destination_service_name": "web",
			"destination_service_namespace": "default", "destination_cluster": "k", "destination_principal": "unknown", "response_flags": "-",
		} {
			if labels[k] != v {
				t.Errorf("%s: %s is %q, want %q", name, k, labels[k], v)
			}
		}
	}
}

func TestTraceContextPassesUnchanged(t *testing.T) {
	var seen atomic.Pointer[http.Header]
	at, _ := web(t, func(_ http.ResponseWriter, r *http.Request) { h := r.Header.Clone(); seen.Store(&h) })
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+b.at(8080)+"/", nil)
	want := map[string]string{
		"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate": "a=b", "B3": "0", "X-B3-Traceid": "1", "Baggage": "k=v",
	}
	for k, v := range want {
		req.Header.Set(k, v)
	}
	fetch(t, browser(t), req)
	for k, v := range want {
		if got := seen.Load().Get(k); got != v {
			t.Errorf("%s: %q, want %q", k, got, v)
		}
	}
}

// RT-10: of x-forwarded-for only as many addresses are believed as there are trusted proxies before us.
func TestRT10ForwardedForIsCutToTheTrustedHops(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-For"), "|", r.Header.Get("X-Envoy-External-Address"), "|", r.Header.Get("X-Forwarded-Proto"))
	})
	for hops, want := range map[int]string{
		0: "127.0.0.1|127.0.0.1|http", 1: "10.0.0.2,127.0.0.1|10.0.0.2|http", 2: "1.2.3.4,10.0.0.2,127.0.0.1|1.2.3.4|http",
	} {
		b := start(t, func(c *Config) { c.TrustedHops = hops })
		b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+b.at(8080)+"/", nil)
		req.Header["X-Forwarded-For"] = []string{"6.6.6.6, 1.2.3.4", "10.0.0.2"}
		req.Header.Set("X-Forwarded-Proto", "HTTPS") // RT-20
		if got := fetch(t, browser(t), req); got.body != want {
			t.Errorf("%d hops: %s, want %s", hops, got.body, want)
		}
	}
}

// At its end a gateway answers what it has begun, tells clients to go elsewhere, and takes nothing new.
func TestTheEndLosesNoRequest(t *testing.T) {
	began, leave := make(chan struct{}, 4), make(chan struct{})
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- struct{}{}
			<-leave
		}
		fmt.Fprint(w, "done")
	})
	log := &lines{got: make(chan struct{}, 1)}
	b := &bench{t: t, log: log, open: map[uint16]string{}, wait: map[uint16]chan struct{}{}}
	g, err := New(Config{AccessLog: log, Grace: 10 * time.Second, Settle: 300 * time.Millisecond, Listen: b.listenTCP})
	if err != nil {
		t.Fatal(err)
	}
	b.Gateway = g
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	base := "http://" + b.at(8080)
	var wg sync.WaitGroup
	for _, c := range []*http.Client{browser(t), h2c(t)} {
		wg.Go(func() {
			if got := get(t, c, base+"/slow", ""); got.status != 200 || got.body != "done" {
				t.Errorf("a request in flight: %d %q", got.status, got.body)
			}
		})
		<-began
	}
	f := frameTo(t, b.at(8080))
	end()
	// While others learn that we go, new connections are served and asked to close.
	for limit := time.Now().Add(250 * time.Millisecond); time.Now().Before(limit); {
		req, _ := http.NewRequest(http.MethodGet, base+"/", nil)
		resp, err := browser(t).Do(req)
		if err != nil {
			t.Fatalf("while it settles: %v", err)
		}
		resp.Body.Close()
		if resp.Close {
			break
		}
	}
	if got := f.untilGoAway(); got != http2.ErrCodeNo {
		t.Errorf("GOAWAY with %s", got)
	}
	close(leave)
	wg.Wait()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", b.at(8080)); err == nil {
		c.Close()
		t.Error("a connection was taken after the end")
	}
}

// untilGoAway reads on until the server says that it goes.
func (f *frameClient) untilGoAway() http2.ErrCode {
	f.t.Helper()
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			f.t.Fatal(err)
		}
		if g, ok := fr.(*http2.GoAwayFrame); ok {
			return g.ErrCode
		}
	}
}

// RS-05, short: what streams through is not kept.
func TestRS05TransfersAreNotKept(t *testing.T) {
	const size = 64 << 20
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if n > 0 {
			fmt.Fprint(w, n)
			return
		}
		piece := bytes.Repeat([]byte("x"), 1<<20)
		for range size / len(piece) {
			w.Write(piece) //nolint:errcheck // counted by the client
		}
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	for _, c := range []*http.Client{browser(t), h2c(t)} {
		resp, err := c.Get("http://" + b.at(8080) + "/down")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
			t.Errorf("down: %d bytes, %v", n, err)
		}
		resp.Body.Close()
		resp, err = c.Post("http://"+b.at(8080)+"/up", "text/plain", io.LimitReader(zeros{}, size))
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(resp.Body); string(body) != fmt.Sprint(size) {
			t.Errorf("up: the backend counted %s", body)
		}
		resp.Body.Close()
	}
	if heap := heapInUse(); heap > 48<<20 {
		t.Errorf("%d MiB of heap after transfers of 256 MiB", heap>>20)
	}
}
