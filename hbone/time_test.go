package hbone_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
)

// frozen is a connection that can stop carrying bytes, as one does whose peer's machine is gone.
type frozen struct {
	net.Conn
	mu   sync.Mutex
	cold bool
	end  chan struct{}
	once sync.Once
}

func (f *frozen) freeze() { f.mu.Lock(); f.cold = true; f.mu.Unlock() }

func (f *frozen) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	f.mu.Lock()
	cold := f.cold
	f.mu.Unlock()
	if cold {
		<-f.end
		return 0, net.ErrClosed
	}
	return n, err
}

func (f *frozen) Close() error {
	f.once.Do(func() { close(f.end) })
	return f.Conn.Close()
}

func TestADeadTunnelIsFoundByPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		plain := m.dialer.DialTCP
		var wire *frozen
		m.dialer.DialTCP = func(ctx context.Context, h hbone.Hop) (net.Conn, error) {
			c, err := plain(ctx, h)
			wire = &frozen{Conn: c, end: make(chan struct{})}
			return wire, err
		}
		s := m.dial(t, "10.0.0.9:80", nil)
		time.Sleep(65 * time.Second) // pings are answered: it lives
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatalf("a quiet tunnel died: %v", err)
		}
		io.ReadFull(s, make([]byte, 1))
		wire.freeze()
		begin := time.Now()
		_, err := s.Read(make([]byte, 1))
		if took := time.Since(begin); err == nil || err == io.EOF || took < 10*time.Second || took > 40*time.Second {
			t.Errorf("read: %v after %v", err, took)
		}
		if _, err := s.Write([]byte("x")); err == nil {
			t.Error("write into a dead tunnel succeeded")
		}
	})
}

func TestAnIdleConnectionIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		s := m.dial(t, "10.0.0.9:80", nil)
		time.Sleep(20 * time.Minute)
		if n := m.dialer.Counts(); n.Connections != 1 {
			t.Fatalf("with an open stream: %+v", n)
		}
		s.CloseWrite()
		io.ReadAll(s)
		s.Close()
		time.Sleep(4 * time.Minute)
		if n := m.dialer.Counts(); n != (hbone.Counts{Connections: 1}) {
			t.Errorf("after 4 minutes: %+v", n)
		}
		time.Sleep(2 * time.Minute)
		if n := m.dialer.Counts(); n != (hbone.Counts{}) {
			t.Errorf("after 6 minutes: %+v", n)
		}
	})
}

func TestAServerThatStopsLetsTunnelsFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		s := m.dial(t, "10.0.0.9:80", nil)
		m.stop()
		synctest.Wait()
		if _, err := m.dialer.Dial(t.Context(), m.hop, "10.0.0.9:80", nil); err == nil {
			t.Error("a draining server took a new tunnel")
		}
		time.Sleep(10 * time.Second)
		fmt.Fprint(s, "still here")
		s.CloseWrite()
		if got, err := io.ReadAll(s); string(got) != "still here" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		s.Close()
		begin := time.Now()
		if err := <-m.served; err != nil || time.Since(begin) > time.Second {
			t.Errorf("serve ended after %v with %v", time.Since(begin), err)
		}
		m.served <- nil
	})
}

func TestAServerThatStopsDoesNotWaitForAPeerThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		plain := m.dialer.DialTCP
		var wire *frozen
		m.dialer.DialTCP = func(ctx context.Context, h hbone.Hop) (net.Conn, error) {
			c, err := plain(ctx, h)
			wire = &frozen{Conn: c, end: make(chan struct{})}
			return wire, err
		}
		s := m.dial(t, "10.0.0.9:80", nil)
		s.CloseWrite()
		io.ReadAll(s)
		s.Close()
		wire.freeze()
		begin := time.Now()
		m.stop()
		if err := <-m.served; err != nil || time.Since(begin) > 3*time.Second {
			t.Errorf("serve ended after %v with %v", time.Since(begin), err)
		}
		m.served <- nil
	})
}

func TestAServerThatStopsCutsAfterItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		s := m.dial(t, "10.0.0.9:80", nil)
		begin := time.Now()
		m.stop()
		_, err := s.Read(make([]byte, 1))
		if took := time.Since(begin); err == nil || err == io.EOF || took != 20*time.Second {
			t.Errorf("read: %v after %v, want a break after 20s", err, took)
		}
	})
}

func TestARunningDialerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		s := m.dial(t, "10.0.0.9:80", nil)
		ctx, stop := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- m.dialer.Run(ctx) }()
		stop()
		synctest.Wait()
		if _, err := m.dialer.Dial(t.Context(), m.hop, "10.0.0.9:80", nil); err == nil {
			t.Error("a dialer that ended opened a tunnel")
		}
		fmt.Fprint(s, "rest")
		s.CloseWrite()
		if got, err := io.ReadAll(s); string(got) != "rest" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		s.Close()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

func TestDialsShareAHandshakeAndConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		plain := m.dialer.DialTCP
		var dials atomic.Int32
		m.dialer.DialTCP = func(ctx context.Context, h hbone.Hop) (net.Conn, error) {
			dials.Add(1)
			time.Sleep(time.Second)
			return plain(ctx, h)
		}
		var wg sync.WaitGroup
		for range 150 {
			wg.Go(func() { m.dial(t, "10.0.0.9:80", nil) })
		}
		wg.Wait()
		if n := m.dialer.Counts(); n != (hbone.Counts{Connections: 2, Streams: 150}) || dials.Load() != 2 {
			t.Errorf("%+v with %d handshakes, want two of each for 150 streams", n, dials.Load())
		}
	})
}

func TestASlowHandshakeDoesNotHoldADialBeyondItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		m.dialer.DialTCP = func(ctx context.Context, _ hbone.Hop) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		long := make(chan error, 1)
		go func() {
			_, err := m.dialer.Dial(context.Background(), m.hop, "10.0.0.9:80", nil)
			long <- err
		}()
		_, err := m.dialer.Dial(ctx, m.hop, "10.0.0.9:80", nil)
		if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took != 2*time.Second {
			t.Errorf("dial: %v after %v", err, took)
		}
		err = <-long
		if _, ok := errors.AsType[*hbone.ConnectError](err); !ok || time.Since(begin) != 10*time.Second {
			t.Errorf("the patient dial: %v after %v", err, time.Since(begin))
		}
	})
}

func TestAPeerThatDoesNotSpeakHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := fakeca.New(t)
		l := memnet.Listen("10.0.0.2:15008")
		defer l.Close()
		d := &hbone.Dialer{Source: ca, Roots: ca, DialTCP: func(ctx context.Context, _ hbone.Hop) (net.Conn, error) { return l.Dial(ctx) }}
		defer d.Close()
		for _, name := range []string{"says nothing", "says something else", "closes"} {
			var server sync.WaitGroup
			server.Go(func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				tc := tls.Server(c, serverTLS(ca))
				if _, err := mtls.Handshake(context.Background(), tc); err != nil {
					return
				}
				switch name {
				case "says something else":
					io.WriteString(tc, "HTTP/1.1 200 OK\r\n\r\n")
				case "closes":
					return
				}
				io.Copy(io.Discard, tc)
			})
			_, err := d.Dial(t.Context(), hop("10.0.0.2:15008"), "10.0.0.9:80", nil)
			if _, ok := errors.AsType[*hbone.HandshakeError](err); !ok {
				t.Errorf("%s: %v, want a HandshakeError", name, err)
			}
			server.Wait()
		}
	})
}

// A client that says nothing, before or behind its handshake, is dropped in time.
func TestSilentClientsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := fakeca.New(t)
		l := memnet.Listen("10.0.0.2:15008")
		ctx, stop := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- hbone.Serve(ctx, l, serverTLS(ca), echo) }()
		for _, shake := range []bool{false, true} {
			begin := time.Now()
			c, err := l.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if shake {
				tc := tls.Client(c, mtls.Client(id("a"), ca, ca, mtls.OneOf(id("b"))))
				if err := tc.Handshake(); err != nil {
					t.Fatal(err)
				}
				c = tc
			}
			io.Copy(io.Discard, c)
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("handshake %v: dropped after %v", shake, took)
			}
			c.Close()
		}
		stop()
		<-served
	})
}

func TestDeadlinesOfAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, func(ctx context.Context, tun hbone.Tunnel) {
			if _, err := tun.Accept(nil); err == nil {
				<-ctx.Done() // reads nothing
			}
		})
		defer m.end(t)
		s := m.dial(t, "10.0.0.9:80", nil)
		begin := time.Now()
		s.SetReadDeadline(begin.Add(time.Second))
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(begin))
		}
		s.SetWriteDeadline(begin.Add(2 * time.Second))
		if n, err := s.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || time.Since(begin) != 2*time.Second {
			t.Errorf("write: %d, %v after %v", n, err, time.Since(begin))
		}
		s.SetDeadline(time.Time{})
		s.Reset()
		if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("read after Reset: %v", err)
		}
	})
}

// A tunnel whose handler returns without ending it was cut, and must not look complete.
func TestAHandlerThatReturnsCutsItsTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, func(_ context.Context, tun hbone.Tunnel) {
			if tun.Authority() == "10.0.0.9:81" {
				return
			}
			c, err := tun.Accept(nil)
			if err == nil {
				c.Write([]byte("half"))
			}
		})
		defer m.end(t)
		s := m.dial(t, "10.0.0.9:80", nil)
		if got, err := io.ReadAll(s); err == nil {
			t.Errorf("read %q and a clean end", got)
		}
		_, err := m.dialer.Dial(t.Context(), m.hop, "10.0.0.9:81", nil)
		if e, ok := errors.AsType[*hbone.StatusError](err); !ok || e.Code != http.StatusInternalServerError {
			t.Errorf("unanswered: %v", err)
		}
	})
}

// An app that resets while its tunnel is being opened must not leave a stream behind.
func TestACancelledDialLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int32
		m := inMemory(t, func(ctx context.Context, tun hbone.Tunnel) { <-ctx.Done(); ended.Add(1) })
		defer m.end(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.dialer.Dial(ctx, m.hop, "10.0.0.9:80", nil)
		synctest.Wait()
		if n := m.dialer.Counts(); !errors.Is(err, context.DeadlineExceeded) || n.Streams != 0 || ended.Load() != 1 {
			t.Errorf("dial: %v; %+v, %d handlers ended", err, n, ended.Load())
		}
	})
}

func TestConnectionsAreNotSharedBetweenSourcesOrIdentities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		m.dial(t, "10.0.0.9:80", nil)
		for _, change := range []func(*hbone.Hop){
			func(h *hbone.Hop) { h.Own = id("other") },
			func(h *hbone.Hop) { h.From = h.Addr.Addr() },
			func(h *hbone.Hop) { h.Expect = []identity.ID{id("b"), id("c")} },
		} {
			h := m.hop
			change(&h)
			if _, err := m.dialer.Dial(t.Context(), h, "10.0.0.9:80", nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := m.dialer.Counts(); n != (hbone.Counts{Connections: 4, Streams: 4}) {
			t.Errorf("open: %+v", n)
		}
	})
}
