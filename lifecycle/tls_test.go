package lifecycle

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
)

func underTLS(t *testing.T) HTTP {
	cert := fakeca.New(t).Issue(identity.ID{TrustDomain: "cluster.local", Namespace: "istio-system", ServiceAccount: "istiod"}).TLS()
	return HTTP{Conns: 300, PerHost: 300, TLS: &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}}
}

func held() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse)
}

// Who does not get through a handshake costs little, and not for long.
func TestXD13StrangersOverTLS(t *testing.T) {
	const strangers = 200
	under(t, underTLS(t), hello, func(t *testing.T, l *memnet.Listener) {
		var conns []net.Conn
		connect := func(say []byte) {
			c, err := l.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(say); err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		before := held()
		// The head of a handshake record of 16 KiB, and most of it.
		half := append([]byte{22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb}, make([]byte, 15000)...)
		for range strangers {
			connect(half)
		}
		synctest.Wait()
		if each := (held() - before) / strangers; each > 64<<10 {
			t.Errorf("half a handshake costs %d bytes", each)
		}
		for _, say := range []string{"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\xff\xff", "\xff\xff\xff\xff\xff"} {
			connect([]byte(say))
		}
		time.Sleep(11 * time.Second)
		for _, c := range conns {
			if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				if ne, ok := err.(net.Error); ok && ne.Timeout() {
					t.Fatal("a stranger is still connected")
				}
			}
			c.Close()
		}
	})
}

// What is not taken up is not taken in: on one connection no more than a window of it, whatever there are of streams.
func TestXD13BodiesThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := memnet.Listen("10.0.0.1:443")
		done := make(chan error, 1)
		waits := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		go func() { done <- underTLS(t).Serve(ctx, l, http.HandlerFunc(waits)) }()
		tr := &http.Transport{
			ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) },
		}
		var sent atomic.Int64
		const streams = 8
		ended := make(chan error, streams)
		for range streams {
			go func() {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://10.0.0.1/", &counting{&sent})
				if err != nil {
					ended <- err
					return
				}
				res, err := tr.RoundTrip(req)
				if err == nil {
					res.Body.Close()
					err = fmt.Errorf("answered: %s", res.Status)
				}
				ended <- err
			}()
		}
		time.Sleep(5 * time.Second)
		// Each stream has read a frame ahead.
		if n := sent.Load(); n == 0 || n > 64<<10+streams*32<<10 {
			t.Errorf("%d bytes were taken in", n)
		}
		cancel()
		for range streams {
			if err := <-ended; err == nil {
				t.Error("a request succeeded")
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		tr.CloseIdleConnections()
	})
}

// counting is a body without an end.
type counting struct{ n *atomic.Int64 }

func (c *counting) Read(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
