package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
)

// pod is an HBONE listener that hands each tunnel to an application.
type pod struct {
	hop     netip.AddrPort
	id      identity.ID
	tunnels atomic.Int64
	peers   sync.Map // identities that opened tunnels
	targets sync.Map // authorities that they asked for
}

func gatewayID() identity.ID {
	return identity.ID{TrustDomain: fakeca.TrustDomain, Namespace: "istio-system", ServiceAccount: "istio-ingressgateway-service-account"}
}

// captured runs a pod whose application listens at app, until the test ends.
func captured(t *testing.T, ca *fakeca.CA, id identity.ID, app string) *pod {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{hop: netip.MustParseAddrPort(l.Addr().String()), id: id}
	conf := mtls.Server(func(*tls.ClientHelloInfo) (identity.ID, error) { return id, nil }, ca, ca, mtls.InTrustDomain(fakeca.TrustDomain))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- hbone.Serve(ctx, l, conf, func(_ context.Context, tunnel hbone.Tunnel) {
			p.tunnels.Add(1)
			p.peers.Store(tunnel.Peer(), true)
			p.targets.Store(tunnel.Authority(), true)
			to, err := net.Dial("tcp", app)
			if err != nil {
				tunnel.Refuse(http.StatusServiceUnavailable, err.Error())
				return
			}
			defer to.Close()
			c, err := tunnel.Accept(nil)
			if err != nil {
				return
			}
			defer c.Close()
			var wg sync.WaitGroup
			wg.Go(func() {
				io.Copy(to, c)                 //nolint:errcheck // seen by the client
				to.(*net.TCPConn).CloseWrite() //nolint:errcheck // as above
			})
			io.Copy(c, to) //nolint:errcheck // as above
			c.Close()
			wg.Wait()
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("hbone: %v", err)
		}
	})
	return p
}

// through makes gateways open tunnels with hbone.Dialer; the pods' port is not 15008 here but where hop says.
func through(t *testing.T, ca *fakeca.CA, hop func(netip.AddrPort) netip.AddrPort) func(*Config) {
	d := &hbone.Dialer{Source: ca, Roots: ca}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return func(c *Config) {
		c.Identity = gatewayID()
		c.Tunnel = func(ctx context.Context, at netip.AddrPort, expect []identity.ID, authority string) (net.Conn, error) {
			return d.Dial(ctx, hbone.Hop{Addr: hop(at), Own: gatewayID(), Expect: expect}, authority, nil)
		}
	}
}

func enrolled(b *l7.Backend, id identity.ID) *l7.Backend {
	for _, e := range b.Endpoints {
		e.Tunnel, e.Identity = l7.Tunnel_TUNNEL_HBONE, id.String()
	}
	return b
}

func TestBackendInTheMeshIsReachedThroughHBONE(t *testing.T) {
	ca := fakeca.New(t)
	at, plain := web(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }) //nolint:errcheck // seen by the client
	page := identity.ID{TrustDomain: fakeca.TrustDomain, Namespace: "default", ServiceAccount: "bookinfo-productpage"}
	p := captured(t, ca, page, at)
	b := start(t, through(t, ca, func(hop netip.AddrPort) netip.AddrPort {
		if hop.Port() != 15008 || hop.Addr().String() != "127.0.0.1" {
			t.Errorf("hop %s, want 127.0.0.1:15008", hop)
		}
		return p.hop
	}))
	b.apply(enrolled(backend("web", at), page), route("*", to("web")), listener(8080, "*"))
	c := browser(t)
	for range 5 {
		if got := get(t, c, "http://"+b.at(8080)+"/x", ""); got.status != 200 {
			t.Fatalf("status %d %q", got.status, got.body)
		}
	}
	if n := p.tunnels.Load(); n != 1 {
		t.Errorf("%d tunnels for five requests, want one that is used again", n)
	}
	if _, ok := p.peers.Load(gatewayID()); !ok {
		t.Error("the pod did not see the gateway's own identity")
	}
	if _, ok := p.targets.Load(at); !ok {
		t.Errorf("the tunnel's authority was not %s", at)
	}
	if plain() == 0 {
		t.Error("the application received nothing")
	}
	b.log.find(t, "200 - via_upstream", at)
}

// ID-11: who cannot prove to be the endpoint gets no byte of the request.
func TestAnotherIdentityIsNotTheBackend(t *testing.T) {
	ca := fakeca.New(t)
	at, received := web(t, echo)
	thief := captured(t, ca, identity.ID{TrustDomain: fakeca.TrustDomain, Namespace: "evil", ServiceAccount: "thief"}, at)
	b := start(t, through(t, ca, func(netip.AddrPort) netip.AddrPort { return thief.hop }))
	page := identity.ID{TrustDomain: fakeca.TrustDomain, Namespace: "default", ServiceAccount: "page"}
	nobody := backend("nobody", at)
	nobody.Endpoints[0].Tunnel = l7.Tunnel_TUNNEL_HBONE // and no identity
	b.apply(enrolled(backend("web", at), page), nobody, route("*", to("nobody", prefix("/nobody")), to("web")), listener(8080, "*"))
	c := browser(t)
	if got := get(t, c, "http://"+b.at(8080)+"/", ""); got.status != 503 {
		t.Errorf("status %d, want 503", got.status)
	}
	b.log.find(t, "UF,URX", "evil/sa/thief")
	if got := get(t, c, "http://"+b.at(8080)+"/nobody", ""); got.status != 503 || got.body != "no healthy upstream" {
		t.Errorf("endpoint without identity: %d %q", got.status, got.body)
	}
	if n := received(); n != 0 || thief.tunnels.Load() != 0 {
		t.Errorf("%d bytes and %d tunnels reached a stranger", n, thief.tunnels.Load())
	}
}

// A pod that enters the mesh is reached through HBONE from the next request on, though plain connections are pooled.
func TestEnrolmentSwitchesTheNextRequest(t *testing.T) {
	ca := fakeca.New(t)
	var conns sync.Map
	at, _ := web(t, func(_ http.ResponseWriter, r *http.Request) { conns.Store(r.RemoteAddr, true) })
	page := identity.ID{TrustDomain: fakeca.TrustDomain, Namespace: "default", ServiceAccount: "page"}
	p := captured(t, ca, page, at)
	b := start(t, through(t, ca, func(netip.AddrPort) netip.AddrPort { return p.hop }))
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	// One client connection for all: what switches is behind the gateway.
	c, err := net.Dial("tcp", b.at(8080))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReader(c)
	ask := func() {
		t.Helper()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") //nolint:errcheck // seen at the answer
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, %v", resp, err)
		}
		io.Copy(io.Discard, resp.Body) //nolint:errcheck // empty
	}
	ask()
	ask()
	if p.tunnels.Load() != 0 {
		t.Fatal("a tunnel before enrolment")
	}
	b.apply(enrolled(backend("web", at), page))
	ask()
	if n := p.tunnels.Load(); n != 1 {
		t.Errorf("after enrolment: %d tunnels, want 1", n)
	}
	b.apply(backend("web", at))
	ask()
	if n := p.tunnels.Load(); n != 1 {
		t.Errorf("after leaving: %d tunnels, want still 1", n)
	}
}

// Bytes go to backends in the mesh through the same tunnels, with the gateway's identity, and never in the clear.
func TestStreamsToTheMeshGoThroughHBONE(t *testing.T) {
	ca := fakeca.New(t)
	at := server(t, func(c *net.TCPConn) { io.Copy(c, c); c.CloseWrite() }) //nolint:errcheck // seen by the client
	db := identity.ID{TrustDomain: fakeca.TrustDomain, Namespace: "default", ServiceAccount: "db"}
	p := captured(t, ca, db, at)
	b := start(t, through(t, ca, func(netip.AddrPort) netip.AddrPort { return p.hop }))
	l, other := listener(9000, "*"), listener(9001, "*")
	l.Protocol, l.Streams = l7.Protocol_TCP, []*l7.StreamRule{streamTo("db")}
	other.Protocol, other.Streams = l7.Protocol_TCP, []*l7.StreamRule{streamTo("impostor")}
	b.apply(enrolled(backend("db", at), db), enrolled(backend("impostor", at), identity.ID{TrustDomain: fakeca.TrustDomain, Namespace: "default", ServiceAccount: "other"}), l, other)
	c := dialled(t, b.at(9000))
	io.WriteString(c, "hello") //nolint:errcheck // seen below
	c.CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, ok := p.peers.Load(gatewayID()); !ok || p.tunnels.Load() != 1 {
		t.Errorf("%d tunnels, not by the gateway", p.tunnels.Load())
	}
	// ID-11, RT-22: one who proves another identity is no backend, and no tunnel of another is used for it.
	c = dialled(t, b.at(9001))
	io.WriteString(c, "secret") //nolint:errcheck // seen below
	if got, _ := io.ReadAll(c); len(got) > 0 || p.tunnels.Load() != 1 {
		t.Errorf("%q of an impostor, %d tunnels", got, p.tunnels.Load())
	}
	b.log.find(t, `"- - -" 0 UF`, "impostor")
}

// BenchmarkRequest: one request after the other over one connection, through the gateway and straight to the backend.
func BenchmarkRequest(b *testing.B) {
	backendAt := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })) //nolint:errcheck // a benchmark's own backend
	defer backendAt.Close()
	for _, through := range []bool{false, true} {
		name, to := "direct", backendAt.Listener.Addr().String()
		if through {
			name = "gateway"
		}
		b.Run(name, func(b *testing.B) {
			if through {
				to = benchGateway(b, to)
			}
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			c := &http.Client{Transport: tr}
			b.ReportAllocs()
			for b.Loop() {
				resp, err := c.Get("http://" + to + "/")
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body) //nolint:errcheck // counted by nobody
				resp.Body.Close()
			}
		})
	}
}

func benchGateway(b *testing.B, addr string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	g, err := New(Config{AccessLog: io.Discard, Listen: func(context.Context, netip.AddrPort) (net.Listener, error) { return l, nil }, Grace: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	for _, err := range []error{
		(&bench{Gateway: g}).give(backend("web", addr)), (&bench{Gateway: g}).give(route("*", to("web"))), (&bench{Gateway: g}).give(listener(8080, "*")),
	} {
		if err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	return l.Addr().String()
}
