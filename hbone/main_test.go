package hbone_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(name string) identity.ID {
	return identity.ID{TrustDomain: fakeca.TrustDomain, Namespace: name, ServiceAccount: name}
}

func hop(addr string) hbone.Hop {
	return hbone.Hop{Addr: netip.MustParseAddrPort(addr), Own: id("a"), Expect: []identity.ID{id("b")}}
}

func serverTLS(ca *fakeca.CA) *tls.Config {
	own := func(*tls.ClientHelloInfo) (identity.ID, error) { return id("b"), nil }
	return mtls.Server(own, ca, ca, mtls.InTrustDomain(fakeca.TrustDomain))
}

// mesh is a client and a server with a network between them.
type mesh struct {
	ca     *fakeca.CA
	dialer *hbone.Dialer
	addr   string
	hop    hbone.Hop
	stop   context.CancelFunc // ends the server's context
	served chan error
}

type handler = func(context.Context, hbone.Tunnel)

// inMemory makes a mesh for synctest bubbles, onLoopback one of real sockets.
func inMemory(t *testing.T, f handler) *mesh {
	l := memnet.Listen("10.0.0.2:15008")
	return newMesh(t, l, func(ctx context.Context, _ hbone.Hop) (net.Conn, error) { return l.Dial(ctx) }, f)
}

func onLoopback(t testing.TB, f handler) *mesh {
	return newMesh(t, listen(t), nil, f)
}

func listen(t testing.TB) *net.TCPListener {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newMesh(t testing.TB, l net.Listener, dial func(context.Context, hbone.Hop) (net.Conn, error), f handler) *mesh {
	ca := fakeca.New(t)
	ctx, stop := context.WithCancel(context.Background())
	m := &mesh{ca: ca, addr: l.Addr().String(), hop: hop(l.Addr().String()), stop: stop, served: make(chan error, 1)}
	m.dialer = &hbone.Dialer{Source: ca, Roots: ca, DialTCP: dial}
	go func() { m.served <- hbone.Serve(ctx, l, serverTLS(ca), f) }()
	t.Cleanup(func() { m.end(t) })
	return m
}

// end stops both sides. A second call does nothing.
func (m *mesh) end(t testing.TB) {
	if m.served == nil {
		return
	}
	if err := m.dialer.Close(); err != nil {
		t.Errorf("close dialer: %v", err)
	}
	m.stop()
	if err := <-m.served; err != nil {
		t.Errorf("serve: %v", err)
	}
	m.served = nil
}

func (m *mesh) dial(t testing.TB, authority string, h http.Header) *hbone.Stream {
	t.Helper()
	s, err := m.dialer.Dial(t.Context(), m.hop, authority, h)
	if err != nil {
		t.Fatalf("dial %s: %v", authority, err)
	}
	return s
}

// echo sends back what comes, and ends when it ends.
func echo(_ context.Context, tun hbone.Tunnel) {
	c, err := tun.Accept(nil)
	if err != nil {
		return
	}
	defer c.Close()
	if _, err := io.Copy(c, c); err == nil {
		c.(*hbone.Stream).CloseWrite()
	}
}

// random gives bytes that no bug produces by accident, and their sum.
func random(n int, seed uint64) ([]byte, [32]byte) {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b, sha256.Sum256(b)
}

func within(t testing.TB, d time.Duration, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("%s: not within %v", what, d)
	}
}

func checkSum(t testing.TB, r io.Reader, want [32]byte) {
	t.Helper()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil || [32]byte(h.Sum(nil)) != want {
		t.Errorf("read %d bytes with the wrong sum, or %v", n, err)
	}
}
