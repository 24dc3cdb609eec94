package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/lifecycle"
)

func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := httputil.DumpRequest(r, true)
	w.Write(b) //nolint:errcheck // a test's own backend
}

func TestBookinfoPathsReachTheProductPage(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "page %s", r.URL.Path) })
	b := start(t, nil)
	b.apply(backend("productpage", at), route("*", to("productpage", exact("/productpage"), prefix("/static"))), listener(8080, "*"))
	c := browser(t)
	base := "http://" + b.at(8080)
	for _, x := range []struct {
		path, body string
		status     int
	}{
		{"/productpage", "page /productpage", 200},
		{"/productpage?u=1", "page /productpage", 200},
		{"/static/x.css", "page /static/x.css", 200},
		{"/productpage/", "", 404},
		{"/", "", 404},
		{"/admin/../productpage", "page /productpage", 200},
		{"/static/../admin", "", 404},
	} {
		if got := get(t, c, base+x.path, "any.host"); got.status != x.status || got.body != x.body {
			t.Errorf("%s: %d %q, want %d %q", x.path, got.status, got.body, x.status, x.body)
		}
	}
	line := b.log.find(t, `"GET /productpage HTTP/1.1" 200 - via_upstream`)
	if !strings.Contains(line, "outbound|80||productpage.default.svc.cluster.local") || !strings.Contains(line, at) {
		t.Errorf("access line %q does not name the backend", line)
	}
	b.log.find(t, `"GET / HTTP/1.1" 404 NR route_not_found`)
}

func TestAnswersWithoutABackend(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuses := dead.Addr().String()
	dead.Close()
	alive, _ := web(t, echo)
	cut, _ := web(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	slow, _ := web(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	b := start(t, nil)
	late := to("slow", prefix("/slow"))
	late.Timeout = durationpb.New(50 * time.Millisecond)
	unknown := backend("unknown")
	unknown.Unknown = true
	b.apply(backend("empty"), backend("dead", refuses), unknown, backend("half", refuses, alive), backend("cut", cut), backend("slow", slow),
		route("*", to("empty", prefix("/empty")), to("dead", prefix("/dead")), to("unknown", prefix("/unknown")), to("half", prefix("/half")),
			to("cut", prefix("/cut")), late), listener(8080, "*"))
	c := browser(t)
	for _, x := range []struct {
		path   string
		status int
		body   string
		log    string
	}{
		{"/none", 404, "", "NR route_not_found"},
		{"/empty", 503, "no healthy upstream", "UH no_healthy_upstream"},
		{"/unknown", 503, "", "NC cluster_not_found"},
		{"/dead", 503, "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure, transport failure reason: delayed connect error: Connection refused", "UF,URX upstream_reset_before_response_started{remote_connection_failure|"},
		{"/half", 200, "GET /half HTTP/1.1", "200 - via_upstream"},
		{"/cut", 503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination", "UC upstream_reset_before_response_started{connection_termination}"},
		{"/slow", 504, "upstream request timeout", "UT response_timeout"},
	} {
		got := get(t, c, "http://"+b.at(8080)+x.path, "")
		if got.status != x.status || !strings.HasPrefix(got.body, x.body) || x.body == "" && got.body != "" {
			t.Errorf("%s: %d %q, want %d %q", x.path, got.status, got.body, x.status, x.body)
		}
		b.log.find(t, x.path, x.log)
	}
}

func TestHeadersThatTheBackendSees(t *testing.T) {
	var seen atomic.Pointer[http.Request]
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Clone(context.Background()))
		w.Header().Set("Connection", "X-Private")
		w.Header().Set("X-Private", "1")
		w.Header().Set("X-Gone", "1")
	})
	b := start(t, nil)
	rule := to("web")
	rule.RequestHeaders = &l7.HeaderOperations{Set: map[string]string{"x-set": "new"}, Add: map[string]string{"x-add": "2"}, Remove: []string{"x-remove"}}
	rule.ResponseHeaders = &l7.HeaderOperations{Add: map[string]string{"x-answer": "yes"}, Remove: []string{"x-gone"}}
	b.apply(backend("web", at), route("*", rule), listener(8080, "*"))
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+b.at(8080)+"/", nil)
	for k, v := range map[string]string{ // RT-09, RT-10, L7-10, L7-22, HB-26
		"Connection": "x-forwarded-for, x-request-id, x-drop", "X-Drop": "1", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https",
		"X-Forwarded-Host": "evil", "X-Real-Ip": "1.2.3.4", "Forwarded": "for=1.2.3.4", "X-Envoy-Original-Path": "/admin", "X_role": "admin",
		"X-Forwarded-Client-Cert": "URI=spiffe://x", "X-Set": "old", "X-Add": "1", "X-Remove": "1", "X-Keep": "1", "Upgrade": "h2c", "HTTP2-Settings": "AAA",
	} {
		req.Header.Set(k, v)
	}
	got := fetch(t, browser(t), req)
	r := seen.Load()
	for k, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "", "X-Real-Ip": "", "Forwarded": "", "X-Envoy-Original-Path": "",
		"X_role": "", "X-Forwarded-Client-Cert": "", "X-Set": "new", "X-Remove": "", "X-Keep": "1", "X-Drop": "", "Upgrade": "", "Http2-Settings": "",
		"X-Envoy-Attempt-Count": "1", "X-Envoy-External-Address": "127.0.0.1",
	} {
		if v := r.Header.Get(k); v != want {
			t.Errorf("backend sees %s: %q, want %q", k, v, want)
		}
	}
	if len(r.Header.Get("X-Request-Id")) != 36 || strings.Join(r.Header["X-Add"], " ") != "1 2" {
		t.Errorf("backend sees x-request-id %q, x-add %q", r.Header.Get("X-Request-Id"), r.Header["X-Add"])
	}
	if h := got.header; h.Get("X-Answer") != "yes" || h.Get("X-Gone") != "" || h.Get("X-Private") != "" || h.Get("Server") != "istio-envoy" || h.Get("X-Envoy-Upstream-Service-Time") == "" {
		t.Errorf("client sees %v", h)
	}
}

func TestRewriteAndRedirect(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Host, r.RequestURI) })
	b := start(t, nil)
	rw := func(m *l7.Match, w *l7.Rewrite) *l7.Rule { r := to("web", m); r.Rewrite = w; return r }
	re := func(m *l7.Match, d *l7.Redirect) *l7.Rule {
		return &l7.Rule{Matches: []*l7.Match{m}, Action: &l7.Rule_Redirect{Redirect: d}}
	}
	b.apply(backend("web", at), route("*",
		rw(prefix("/strip"), &l7.Rewrite{PathKind: &l7.Rewrite_Prefix{Prefix: "/"}, Host: "inner.test"}),
		rw(prefix("/a/"), &l7.Rewrite{PathKind: &l7.Rewrite_Prefix{Prefix: "/b/"}}),
		rw(exact("/exact"), &l7.Rewrite{PathKind: &l7.Rewrite_Prefix{Prefix: "/other"}}),
		rw(prefix("/re/"), &l7.Rewrite{PathKind: &l7.Rewrite_Regex{Regex: &l7.RegexRewrite{Match: "^/re/(.+)/(.+)$", Substitution: `/\2/\1`}}}),
		re(prefix("/old"), &l7.Redirect{Code: 301, PathKind: &l7.Redirect_Prefix{Prefix: "/new"}}),
		re(exact("/away"), &l7.Redirect{Code: 302, Host: "www.example.com", Scheme: "https", PathKind: &l7.Redirect_Path{Path: "/x"}}),
		&l7.Rule{Matches: []*l7.Match{exact("/hello")}, Action: &l7.Rule_DirectResponse{DirectResponse: &l7.DirectResponse{Status: 418, Body: []byte("tea")}}},
		re(prefix("/"), &l7.Redirect{Code: 301, Host: "www.example.com"}),
	), listener(8080, "*"))
	c := browser(t)
	for _, x := range []struct{ path, want string }{
		{"/strip/x?q=1", "200 inner.test /x?q=1"},
		{"/strip", "200 inner.test /"},
		{"/strip//evil.com/x", "200 inner.test /evil.com/x"}, // RT-16
		{"/a/c%2Fd", "200 shop.test /b/c%2Fd"},
		{"/exact", "200 shop.test /other"},
		{"/re/one/two", "200 shop.test /two/one"},
		{"/old/x?y=z", "301 http://shop.test/new/x?y=z"},
		{"/old//evil.com", "301 http://shop.test/new//evil.com"},
		{"/away?x=1", "302 https://www.example.com/x?x=1"},
		{"/hello", "418 tea"},
		{"//evil.com/%0d%0aSet-Cookie:%20a", "301 http://www.example.com//evil.com/%0d%0aSet-Cookie:%20a"},
	} {
		a := get(t, c, "http://"+b.at(8080)+x.path, "shop.test")
		got := fmt.Sprintf("%d %s%s", a.status, a.body, a.header.Get("Location"))
		if got != x.want {
			t.Errorf("%s: %q, want %q", x.path, got, x.want)
		}
	}
}

func TestWebSocketPassesBothWays(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			http.Error(w, "no upgrade", 400)
			return
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi ") //nolint:errcheck // seen by the client
		io.Copy(c, rw)                                                                                                //nolint:errcheck // as above
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web", prefix("/ws"))), listener(8080, "*"))
	c, err := net.Dial("tcp", b.at(8080))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	// The first frame comes with the request: it was read ahead and must not be lost.
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly") //nolint:errcheck // seen below
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("response %v, %v", resp, err)
	}
	io.WriteString(c, " late") //nolint:errcheck // seen below
	c.(*net.TCPConn).CloseWrite()
	if all, err := io.ReadAll(br); err != nil || string(all) != "hi early late" {
		t.Errorf("echo %q, %v", all, err)
	}
	b.log.find(t, `"GET /ws HTTP/1.1" 101`)
}

func TestBodiesStreamBothWays(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex() //nolint:errcheck // httptest serves HTTP/1
		buf := make([]byte, 16)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n]) //nolint:errcheck // seen by the client
			rc.Flush()       //nolint:errcheck // as above
			if err != nil {
				return
			}
		}
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	pr, pw := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+b.at(8080)+"/", pr)
	go io.WriteString(pw, "one") //nolint:errcheck // seen in the answer
	resp, err := browser(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 3)
	for _, w := range []string{"one", "two"} { // each piece comes back before the next is sent
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != w {
			t.Fatalf("got %q, %v; want %q", buf, err, w)
		}
		if w == "one" {
			go io.WriteString(pw, "two") //nolint:errcheck // as above
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 {
		t.Errorf("rest %q, %v", rest, err)
	}
}

func TestHTTP2WithPriorKnowledge(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })
	b := start(t, nil)
	two := backend("two", at)
	two.Protocol = l7.AppProtocol_HTTP2
	b.apply(backend("one", at), two, route("*", to("one", prefix("/one")), to("two", prefix("/two"))), listener(8080, "*"))
	tr := &http.Transport{Protocols: &http.Protocols{}}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	for path, want := range map[string]string{"/one": "HTTP/1.1", "/two": "HTTP/2.0"} {
		got := get(t, &http.Client{Transport: tr}, "http://"+b.at(8080)+path, "")
		if got.body != want || got.status != 200 {
			t.Errorf("%s: %d, backend saw %q, want %q", path, got.status, got.body, want)
		}
		b.log.find(t, path+` HTTP/2.0" 200`)
	}
}

func TestReloadsUnderLoadLoseNoRequest(t *testing.T) {
	one, _ := web(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	two, _ := web(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	b := start(t, nil)
	b.apply(backend("web0", one), route("*", to("web0")), listener(8080, "*"))
	base := "http://" + b.at(8080) + "/"
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var served, failed atomic.Int64
	for range 8 {
		c := browser(t)
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, err := c.Get(base)
				if err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 || string(body) != "ok" {
					failed.Add(1)
					t.Errorf("%d %q", resp.StatusCode, body)
				}
				served.Add(1)
			}
		})
	}
	for i := 1; i <= 100; i++ {
		// Each round leads to a new backend, sent after the route that names it, and removes the one before.
		name := fmt.Sprintf("web%d", i)
		if err := b.takeBackends(nil, []string{fmt.Sprintf("web%d", i-1)}); err != nil {
			t.Fatal(err)
		}
		b.apply(route("*", to(name)))
		b.apply(backend(name, []string{one, two}[i%2]))
		for before := served.Load(); served.Load() < before+4 && failed.Load() == 0; {
			time.Sleep(time.Millisecond) // until each state has served something
		}
	}
	cancel()
	wg.Wait()
	if failed.Load() > 0 || served.Load() < 400 {
		t.Errorf("%d of %d requests failed", failed.Load(), served.Load())
	}
}

func TestReadyAfterEachTypeCame(t *testing.T) {
	ready := &lifecycle.Readiness{}
	b := start(t, func(c *Config) { c.Ready = ready })
	if p := ready.Pending(); len(p) != 4 {
		t.Fatalf("pending %v", p)
	}
	for _, f := range []func() error{
		func() error { return b.takeSecrets(nil, nil) }, func() error { return b.takeBackends(nil, nil) },
		func() error { return b.takeRoutes(nil, nil) }, func() error { return b.takeListeners(nil, nil) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	if p := ready.Pending(); len(p) != 0 {
		t.Errorf("pending %v", p)
	}
}

func TestARefusedRouteLeavesTheOneBefore(t *testing.T) {
	at, _ := web(t, echo)
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	broken := route("*", to("web", &l7.Match{Path: &l7.StringMatch{Kind: &l7.StringMatch_Regex{Regex: "("}}}))
	if b.give(broken) == nil {
		t.Fatal("a route with a broken expression was taken")
	}
	if got := get(t, browser(t), "http://"+b.at(8080)+"/x", ""); got.status != 200 {
		t.Errorf("status %d, want 200", got.status)
	}
}

// A client that goes away ends its request at the backend, and is logged as the one who went.
func TestClientThatLeavesEndsItsRequest(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	at, _ := web(t, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(ended)
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	c, err := net.Dial("tcp", b.at(8080))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET /left HTTP/1.1\r\nHost: a\r\n\r\n") //nolint:errcheck // seen at the backend
	<-began
	c.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the backend goes on for a client that has left")
	}
	b.log.find(t, "/left", "0 DC downstream_remote_disconnect")
}

// A response that its backend cuts must not look complete to the client.
func TestCutResponseIsNotComplete(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "part") //nolint:errcheck // seen by the client
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	resp, err := browser(t).Get("http://" + b.at(8080) + "/cut")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the client read %q to an end", body)
	}
	b.log.find(t, "/cut", "200 UC upstream_reset_after_response_started")
}
