package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ambit-mesh/ambit/api/l7"
)

// several starts n backends that answer with their own number.
func several(t *testing.T, n int) (at []string) {
	for i := range n {
		a, _ := web(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, i) })
		at = append(at, a)
	}
	return at
}

func TestRoundRobinGivesEachItsTurn(t *testing.T) {
	at := several(t, 3)
	b := start(t, nil)
	plain, heavy := backend("plain", at...), backend("heavy", at...)
	plain.Balancer = &l7.LoadBalancer{Kind: l7.LoadBalancer_ROUND_ROBIN}
	heavy.Balancer, heavy.Endpoints[0].Weight = plain.Balancer, 2
	b.apply(plain, heavy, route("*", to("plain", prefix("/plain")), to("heavy", prefix("/heavy"))), listener(8080, "*"))
	c := browser(t)
	for path, want := range map[string]string{"/plain": "012012012", "/heavy": "01200120"} {
		var got string
		for range len(want) {
			got += get(t, c, "http://"+b.at(8080)+path, "").body
		}
		if got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestConsistentHashKeepsAClientAtItsEndpoint(t *testing.T) {
	at := several(t, 4)
	b := start(t, nil)
	var rules []*l7.Rule
	for name, h := range map[string]*l7.Hash{
		"header": {Key: &l7.Hash_Header{Header: "x-user"}}, "query": {Key: &l7.Hash_Query{Query: "user"}},
		"ip": {Key: &l7.Hash_SourceIp{SourceIp: true}}, "cookie": {Key: &l7.Hash_Cookie{Cookie: &l7.Cookie{Name: "user", Path: "/", Ttl: durationpb.New(time.Hour)}}},
	} {
		x := backend(name, at...)
		x.Balancer = &l7.LoadBalancer{Kind: l7.LoadBalancer_CONSISTENT_HASH, Hash: h}
		b.apply(x)
		rules = append(rules, to(name, prefix("/"+name)))
	}
	b.apply(route("*", rules...), listener(8080, "*"))
	c := browser(t)
	ask := func(path string, header ...string) answer {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+b.at(8080)+path, nil)
		if len(header) > 0 {
			req.Header.Set(header[0], header[1])
		}
		return fetch(t, c, req)
	}
	used := map[string]bool{}
	before := map[int]string{}
	for u := range 40 {
		user := fmt.Sprint("u", u)
		first := ask("/header", "X-User", user).body
		before[u] = first
		used[first] = true
		for range 3 {
			if again := ask("/header", "X-User", user).body; again != first {
				t.Fatalf("user %s was at %s and is at %s", user, first, again)
			}
		}
		if q, again := ask("/query?user="+user).body, ask("/query?x=y&user="+user).body; q != again || q != first {
			t.Errorf("by query %s and %s, by header %s", q, again, first)
		}
	}
	if len(used) != 4 {
		t.Errorf("40 users are at %d of 4 endpoints", len(used))
	}
	if x, y := ask("/ip").body, ask("/ip").body; x != y {
		t.Errorf("one address is at %s and %s", x, y)
	}
	first := ask("/cookie")
	cookie := strings.Split(first.header.Get("Set-Cookie"), ";")[0]
	if !strings.HasPrefix(cookie, "user=") || !strings.Contains(first.header.Get("Set-Cookie"), "Max-Age=3600") {
		t.Fatalf("cookie %q", first.header.Get("Set-Cookie"))
	}
	for range 5 {
		if again := ask("/cookie", "Cookie", cookie); again.body != first.body || again.header.Get("Set-Cookie") != "" {
			t.Errorf("with its cookie the client is at %s, was at %s; cookie again %q", again.body, first.body, again.header.Get("Set-Cookie"))
		}
	}
	// One endpoint goes: only its users move.
	fewer := backend("header", at[:3]...)
	fewer.Balancer = &l7.LoadBalancer{Kind: l7.LoadBalancer_CONSISTENT_HASH, Hash: &l7.Hash{Key: &l7.Hash_Header{Header: "x-user"}}}
	b.apply(fewer)
	for u, was := range before {
		if now := ask("/header", "X-User", fmt.Sprint("u", u)).body; was != "3" && now != was {
			t.Errorf("user %d moved from %s to %s", u, was, now)
		}
	}
}

func TestOutliersAreLeftAloneForATime(t *testing.T) {
	var ill atomic.Bool
	ill.Store(true)
	sick, _ := web(t, func(w http.ResponseWriter, _ *http.Request) {
		if ill.Load() {
			w.WriteHeader(500)
		}
		fmt.Fprint(w, "sick")
	})
	well, _ := web(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "well") })
	b := start(t, nil)
	o := &l7.Outliers{Consecutive_5Xx: 3, Interval: durationpb.New(time.Second), BaseEjection: durationpb.New(300 * time.Millisecond), MaxPercent: 10}
	x, alone := backend("web", sick, well), backend("alone", sick)
	x.Outliers, x.Balancer = o, &l7.LoadBalancer{Kind: l7.LoadBalancer_ROUND_ROBIN}
	alone.Outliers = &l7.Outliers{Consecutive_5Xx: 1, BaseEjection: durationpb.New(time.Hour), MaxPercent: 100}
	b.apply(x, alone, route("*", to("alone", prefix("/alone")), to("web")), listener(8080, "*"))
	c := browser(t)
	base := "http://" + b.at(8080)
	failures := 0
	for range 20 {
		if get(t, c, base+"/", "").status == 500 {
			failures++
		}
	}
	if failures != 3 {
		t.Errorf("%d requests of 20 failed, want 3", failures)
	}
	ill.Store(false)
	for limit := time.Now().Add(10 * time.Second); get(t, c, base+"/", "").body != "sick"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the endpoint never came back")
		}
	}
	ill.Store(true)
	if got := get(t, c, base+"/alone", ""); got.status != 500 {
		t.Errorf("alone: %d", got.status)
	}
	if got := get(t, c, base+"/alone", ""); got.status != 503 || got.body != "no healthy upstream" {
		t.Errorf("alone, ejected: %d %q", got.status, got.body)
	}
	b.log.find(t, "/alone", " 503 UH no_healthy_upstream")
}

func TestEndpointsOfLowerPriorityAreForFailover(t *testing.T) {
	var ill atomic.Bool
	near, _ := web(t, func(w http.ResponseWriter, _ *http.Request) {
		if ill.Load() {
			w.WriteHeader(500)
		}
		fmt.Fprint(w, "near")
	})
	far, _ := web(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "far") })
	b := start(t, nil)
	x := backend("web", far, near)
	x.Endpoints[0].Priority = 2
	x.Outliers = &l7.Outliers{Consecutive_5Xx: 1, BaseEjection: durationpb.New(time.Hour), MaxPercent: 100}
	b.apply(x, route("*", to("web")), listener(8080, "*"))
	c := browser(t)
	for range 10 {
		if got := get(t, c, "http://"+b.at(8080)+"/", ""); got.body != "near" {
			t.Fatalf("served by %s while the near one is well", got.body)
		}
	}
	ill.Store(true)
	get(t, c, "http://"+b.at(8080)+"/", "")
	for range 10 {
		if got := get(t, c, "http://"+b.at(8080)+"/", ""); got.body != "far" {
			t.Fatalf("served by %q while the near one is ejected", got.body)
		}
	}
}

func TestABackendIsGivenNoMoreThanItsLimits(t *testing.T) {
	began, leave := make(chan struct{}, 8), make(chan struct{})
	at, _ := web(t, func(http.ResponseWriter, *http.Request) { began <- struct{}{}; <-leave })
	b := start(t, nil)
	x, y := backend("web", at), backend("few", at)
	x.Limits = &l7.Limits{MaxConnections: 1, MaxPending: 1}
	y.Limits = &l7.Limits{MaxRequests: 1}
	b.apply(x, y, route("*", to("few", prefix("/few")), to("web")), listener(8080, "*"))
	base := "http://" + b.at(8080)
	var wg sync.WaitGroup
	for _, path := range []string{"/few", "/one"} {
		served := map[string]int{"/few": 1, "/one": 2}[path] // one at once, and one that waits for the connection
		answers := make(chan answer)
		for range 3 {
			wg.Go(func() { answers <- get(t, browser(t), base+path, "") })
		}
		<-began
		for range 3 - served {
			got := <-answers
			if got.status != 503 || got.header.Get("X-Envoy-Overloaded") != "true" ||
				got.body != "upstream connect error or disconnect/reset before headers. reset reason: overflow" {
				t.Errorf("%s: %d %q %v", path, got.status, got.body, got.header)
			}
			b.log.find(t, path, " 503 UO upstream_reset_before_response_started{overflow}")
		}
		wg.Go(func() {
			for range served {
				if got := <-answers; got.status != 200 {
					t.Errorf("%s: %d", path, got.status)
				}
			}
		})
	}
	close(leave)
	wg.Wait()
}

func TestRetriesSendTheBodyAgain(t *testing.T) {
	var tries sync.Map
	count := func(path string) int {
		n, _ := tries.LoadOrStore(path, new(atomic.Int64))
		return int(n.(*atomic.Int64).Add(1))
	}
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		n := count(r.URL.Path)
		switch {
		case strings.HasPrefix(r.URL.Path, "/slow") && n == 1:
			<-r.Context().Done()
		case n < 3 || strings.HasPrefix(r.URL.Path, "/never"):
			w.WriteHeader(503)
		}
		fmt.Fprintf(w, "%d %d", n, len(body))
	})
	b := start(t, nil)
	rule := func(p string, on ...string) *l7.Rule {
		r := to("web", prefix(p))
		r.Retries = &l7.Retries{Attempts: 2, On: on, PerTryTimeout: durationpb.New(time.Second), Backoff: durationpb.New(time.Millisecond)}
		return r
	}
	slow := rule("/slow", "5xx")
	slow.Retries.PerTryTimeout = durationpb.New(100 * time.Millisecond)
	b.apply(backend("web", at), route("*", rule("/5xx", "5xx"), rule("/code", "503"), rule("/gw", "gateway-error"), rule("/no", "connect-failure"),
		rule("/never", "5xx"), slow, to("web", prefix("/default"))), listener(8080, "*"))
	for _, x := range []struct {
		path   string
		size   int
		status int
		want   string
		log    string
	}{
		{"/5xx", 1000, 200, "3 1000", " 200 - via_upstream"},
		{"/code", 0, 200, "3 0", " 200 - "},
		{"/gw", 60 << 10, 200, "3 61440", " 200 - "},
		{"/no", 10, 503, "1 10", " 503 - via_upstream"},
		{"/never", 10, 503, "3 10", " 503 URX via_upstream"},
		{"/5xx/big", 1 << 20, 503, "1 1048576", " 503 - "}, // more than is kept
		{"/default", 10, 503, "1 10", " 503 - "},
		{"/slow", 10, 200, "3 10", " 200 - "},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+b.at(8080)+x.path, strings.NewReader(strings.Repeat("x", x.size)))
		if got := fetch(t, browser(t), req); got.status != x.status || got.body != x.want {
			t.Errorf("%s: %d %q, want %d %q", x.path, got.status, got.body, x.status, x.want)
		}
		b.log.find(t, x.path+" HTTP", x.log)
	}
}

func TestTLSTowardsBackendsOutsideTheMesh(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	var received atomic.Int64
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	chain, key := a.leaf(7, "api.test")
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received.Add(1)
		client := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			client = r.TLS.PeerCertificates[0].DNSNames[0]
		}
		fmt.Fprint(w, r.TLS.ServerName, " ", client, " ", r.Proto)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	b := start(t, nil)
	own, alien := a.secret("own", 9, "gw.test"), foreign.secret("alien", 9, "gw.test")
	caOnly := a.secret("ca", 9, "x")
	caOnly.CertificateChain, caOnly.PrivateKey = nil, nil
	b.apply(own, alien, caOnly)
	var rules []*l7.Rule
	for name, u := range map[string]*l7.UpstreamTLS{
		"simple": {Sni: "api.test", Secret: "ca"}, "mutual": {Sni: "api.test", Secret: "own"}, "other-ca": {Sni: "api.test", Secret: "alien"},
		"other-name": {Sni: "wrong.test", Secret: "ca"}, "san": {Sni: "any.test", SubjectAltNames: []string{"api.test"}, Secret: "ca"},
		"other-san": {Sni: "api.test", SubjectAltNames: []string{"wrong.test"}, Secret: "ca"}, "missing": {Sni: "api.test", Secret: "never"},
		"insecure": {Sni: "wrong.test", Insecure: true}, "system": {Sni: "api.test"}, "mesh": {Mesh: true}, "h2": {Sni: "api.test", Secret: "ca"},
	} {
		x := backend(name, s.Listener.Addr().String())
		x.Tls = u
		if name == "h2" {
			x.Protocol = l7.AppProtocol_HTTP2
		}
		b.apply(x)
		rules = append(rules, to(name, exact("/"+name)))
	}
	b.apply(route("*", rules...), listener(8080, "*"))
	for path, want := range map[string]string{
		"/simple": "api.test nobody HTTP/1.1", "/mutual": "api.test gw.test HTTP/1.1", "/san": "any.test nobody HTTP/1.1",
		"/insecure": "wrong.test nobody HTTP/1.1", "/h2": "api.test nobody HTTP/2.0",
	} {
		if got := get(t, browser(t), "http://"+b.at(8080)+path, ""); got.status != 200 || got.body != want {
			t.Errorf("%s: %d %q, want %q", path, got.status, got.body, want)
		}
	}
	served := received.Load()
	for _, path := range []string{"/other-ca", "/other-name", "/other-san", "/missing", "/system", "/mesh"} {
		if got := get(t, browser(t), "http://"+b.at(8080)+path, ""); got.status != 503 {
			t.Errorf("%s: %d %q, want 503", path, got.status, got.body)
		}
	}
	if n := received.Load(); n != served {
		t.Errorf("the backend served %d requests of a gateway that could not verify it", n-served)
	}
	b.log.find(t, "/other-ca", " 503 UF")
	b.apply(func() *l7.Secret { late := a.secret("never", 9, "late.test"); return late }())
	if got := get(t, browser(t), "http://"+b.at(8080)+"/missing", ""); got.status != 200 {
		t.Errorf("after the secret came: %d %q", got.status, got.body)
	}
}
