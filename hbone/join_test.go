package hbone_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/hbone"
)

// chain is an application, two proxies and a backend: app -TCP- Join -tunnel- Join -TCP- backend.
type chain struct {
	*mesh
	t        testing.TB
	outbound *net.TCPListener // where the first proxy takes connections
	backend  *net.TCPListener
	results  chan hbone.Result // of the first proxy
	remote   chan hbone.Result // of the second
	wg       sync.WaitGroup
}

func newChain(t testing.TB) *chain {
	c := &chain{t: t, outbound: listen(t), backend: listen(t), results: make(chan hbone.Result, 10_000), remote: make(chan hbone.Result, 10_000)}
	c.mesh = onLoopback(t, func(ctx context.Context, tun hbone.Tunnel) {
		to, err := net.Dial("tcp", tun.Authority())
		if err != nil {
			tun.Refuse(503, err.Error())
			return
		}
		s, err := tun.Accept(nil)
		if err != nil {
			to.Close()
			return
		}
		c.remote <- hbone.Join(ctx, to, s)
	})
	c.wg.Go(func() {
		for {
			app, err := c.outbound.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() {
				s, err := c.dialer.Dial(context.Background(), c.hop, c.backend.Addr().String(), nil)
				if err != nil {
					app.(*net.TCPConn).SetLinger(0)
					app.Close()
					c.results <- hbone.Result{Err: err}
					return
				}
				c.results <- hbone.Join(context.Background(), app, s)
			})
		}
	})
	t.Cleanup(func() {
		c.outbound.Close()
		c.backend.Close()
		c.mesh.end(t)
		c.wg.Wait()
	})
	return c
}

// open gives both ends.
func (c *chain) open() (app, backend *net.TCPConn) {
	c.t.Helper()
	a, err := net.Dial("tcp", c.outbound.Addr().String())
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := c.backend.Accept()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, x := range []net.Conn{a, b} {
		x.SetDeadline(time.Now().Add(60 * time.Second))
		c.t.Cleanup(func() { x.Close() })
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func (c *chain) result(of chan hbone.Result) hbone.Result {
	c.t.Helper()
	select {
	case r := <-of:
		return r
	case <-time.After(30 * time.Second):
		c.t.Fatal("join does not end")
		return hbone.Result{}
	}
}

func TestJoinHalfCloseBothWays_HB12(t *testing.T) {
	const size = 10 << 20
	c := newChain(t)
	for _, name := range []string{"client ends first", "backend ends first"} {
		t.Run(name, func(t *testing.T) {
			first, second := c.open()
			if name == "backend ends first" {
				first, second = second, first
			}
			io.WriteString(first, "over")
			first.CloseWrite()
			if got, err := io.ReadAll(second); string(got) != "over" || err != nil {
				t.Fatalf("read %q, %v", got, err)
			}
			sent, want := random(size, 12)
			go func() { second.Write(sent); second.CloseWrite() }()
			checkSum(t, first, want)
			r, remote := c.result(c.results), c.result(c.remote)
			if r.Err != nil || remote.Err != nil || r.Sent+r.Received != size+4 || remote.Sent != r.Received || remote.Received != r.Sent {
				t.Errorf("results %+v, %+v", r, remote)
			}
		})
	}
}

func TestJoinBothDirectionsOfManyStreams(t *testing.T) {
	const streams, size = 50, 1 << 20
	c := newChain(t)
	var wg sync.WaitGroup
	for i := range streams {
		app, back := c.open()
		for j, pair := range [][2]*net.TCPConn{{app, back}, {back, app}} {
			sent, want := random(size+i, uint64(2*i+j))
			wg.Go(func() { pair[0].Write(sent); pair[0].CloseWrite() })
			wg.Go(func() {
				h := sha256.New()
				if n, err := io.Copy(h, pair[1]); err != nil || [32]byte(h.Sum(nil)) != want {
					t.Errorf("stream %d way %d: %d bytes, %v", i, j, n, err)
				}
			})
		}
	}
	wg.Wait()
	for range streams {
		if r := c.result(c.results); r.Err != nil || r.Sent < size || r.Received < size {
			t.Errorf("result %+v", r)
		}
	}
	if n := c.dialer.Counts(); n.Connections != 1 {
		t.Errorf("%d connections for %d streams", n.Connections, streams)
	}
}

func TestJoinTenMegabytesEachWay(t *testing.T) {
	c := newChain(t)
	app, back := c.open()
	up, upSum := random(10<<20, 5)
	down, downSum := random(10<<20, 6)
	var wg sync.WaitGroup
	wg.Go(func() { app.Write(up); app.CloseWrite() })
	wg.Go(func() { back.Write(down); back.CloseWrite() })
	wg.Go(func() { checkSum(t, back, upSum) })
	checkSum(t, app, downSum)
	wg.Wait()
	if r := c.result(c.results); r != (hbone.Result{Sent: 10 << 20, Received: 10 << 20}) {
		t.Errorf("result %+v", r)
	}
}

func TestJoinPassesAResetOn(t *testing.T) {
	c := newChain(t)
	for _, name := range []string{"client resets", "backend resets"} {
		t.Run(name, func(t *testing.T) {
			first, second := c.open()
			if name == "backend resets" {
				first, second = second, first
			}
			io.WriteString(first, "part")
			if _, err := io.ReadFull(second, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			first.SetLinger(0)
			first.Close()
			if got, err := io.ReadAll(second); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other end read %q, %v; want a reset", got, err)
			}
			for who, r := range map[string]hbone.Result{"near": c.result(c.results), "far": c.result(c.remote)} {
				if !errors.Is(r.Err, syscall.ECONNRESET) {
					t.Errorf("%s result %+v; want a reset", who, r)
				}
			}
		})
	}
}

// A tunnel that breaks in the middle must not look like the end of the transfer.
func TestJoinOfALostTunnelIsAReset(t *testing.T) {
	c := newChain(t)
	app, back := c.open()
	io.WriteString(back, "first half")
	if _, err := io.ReadFull(app, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	c.dialer.Close() // cuts
	for name, end := range map[string]net.Conn{"app": app, "backend": back} {
		if _, err := io.ReadAll(end); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want a reset", name, err)
		}
	}
}

func TestJoinEndsWithItsContext(t *testing.T) {
	m := onLoopback(t, echo)
	l := listen(t)
	defer l.Close()
	app, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	inside, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	denied := errors.New("connection closed due to policy change")
	done := make(chan hbone.Result, 1)
	var traffic hbone.Traffic
	s := m.dial(t, "10.0.0.9:80", nil)
	go func() { done <- traffic.Join(ctx, inside, s) }()
	fmt.Fprint(app, "hello")
	if _, err := io.ReadFull(app, make([]byte, 5)); err != nil {
		t.Fatalf("echo: %v", err)
	}
	cancel(denied)
	if r := <-done; !errors.Is(r.Err, denied) || r.Sent != 5 || r.Received != 5 || traffic.Sent.Load() != 5 {
		t.Errorf("result %+v", r)
	}
	if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("app read: %v, want a reset", err)
	}
}

// Two plain sockets are joined by the same call.
func TestJoinOfTwoSockets(t *testing.T) {
	l := listen(t)
	defer l.Close()
	pair := func() (net.Conn, net.Conn) {
		a, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close(); b.Close() })
		return a, b
	}
	app, in := pair()
	out, far := pair()
	done := make(chan hbone.Result, 1)
	go func() { done <- hbone.Join(t.Context(), in, out) }()
	sent, want := random(3<<20, 3)
	go func() { app.Write(sent); app.(*net.TCPConn).CloseWrite() }()
	checkSum(t, far, want)
	far.Write([]byte("bye"))
	far.Close()
	if got, err := io.ReadAll(app); string(got) != "bye" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if r := <-done; r != (hbone.Result{Sent: 3 << 20, Received: 3}) {
		t.Errorf("result %+v", r)
	}
}
