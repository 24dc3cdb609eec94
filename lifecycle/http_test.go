package lifecycle

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// under runs f with a server in memory and in virtual time, and checks that it ends.
func under(t *testing.T, b HTTP, h http.HandlerFunc, f func(t *testing.T, l *memnet.Listener)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := memnet.Listen("10.0.0.1:80")
		done := make(chan error, 1)
		go func() { done <- b.Serve(ctx, l, h) }()
		f(t, l)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }

// A caller that says half of a request is let go.
func TestSlowCallerIsDropped(t *testing.T) {
	under(t, HTTP{}, hello, func(t *testing.T, l *memnet.Listener) {
		c, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Sl")
		begin := time.Now()
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("dropped after %v", took)
		}
	})
}

// What streams lives on, and ends with the server.
func TestStreamsStayOpen(t *testing.T) {
	tick := func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(time.Minute):
				fmt.Fprintln(w, "tick")
				w.(http.Flusher).Flush()
			}
		}
	}
	under(t, HTTP{Streams: true}, tick, func(t *testing.T, l *memnet.Listener) {
		c, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		for range 30 {
			if !lines.Scan() {
				t.Fatal(lines.Err())
			}
		}
	})
}

// More connections than allowed wait; those that are served are not touched.
func TestConnectionsAreBounded(t *testing.T) {
	under(t, HTTP{Conns: 2}, hello, func(t *testing.T, l *memnet.Listener) {
		get := func() (io.Closer, *http.Response) {
			c, err := l.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			return c, resp
		}
		first, _ := get()
		second, _ := get()
		defer second.Close()
		begin := time.Now()
		go func() { time.Sleep(3 * time.Second); first.Close() }()
		third, resp := get()
		defer third.Close()
		if took := time.Since(begin); took < 3*time.Second || resp.StatusCode != http.StatusOK {
			t.Errorf("the third was answered %d after %v", resp.StatusCode, took)
		}
	})
}

// One address cannot take all connections: what it has too many of is closed at once, and it may come again later.
func TestOneAddressHasItsShare(t *testing.T) {
	under(t, HTTP{PerHost: 2}, hello, func(t *testing.T, l *memnet.Listener) {
		var open []io.Closer
		for range 2 {
			c, err := l.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		third, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if n, err := third.Read(make([]byte, 1)); err == nil || time.Since(begin) > 0 {
			t.Errorf("the third reads %d bytes after %v: %v", n, time.Since(begin), err)
		}
		for _, c := range open {
			c.Close()
		}
		synctest.Wait()
		again, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		fmt.Fprint(again, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(again), nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("later: %v", err)
		}
	})
}

// A server that lingers answers for a while after its end, also who comes only then, and leaves nobody without an answer.
func TestLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := memnet.Listen("10.0.0.1:80")
		done := make(chan error, 1)
		slow := func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Second):
				hello(w, r)
			}
		}
		go func() { done <- HTTP{Linger: 3 * time.Second}.Serve(ctx, l, http.HandlerFunc(slow)) }()
		cancel()
		begin := time.Now()
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) }}}
		defer client.CloseIdleConnections()
		for range 3 { // the last one is under way when the lingering is over
			time.Sleep(250 * time.Millisecond)
			resp, err := client.Get("http://10.0.0.1/")
			if err != nil {
				t.Fatalf("after %v: %v", time.Since(begin), err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
				t.Errorf("after %v: %q, %v", time.Since(begin), body, err)
			}
			resp.Body.Close()
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if took := time.Since(begin); took < 3*time.Second || took > 6*time.Second {
			t.Errorf("it ended after %v", took)
		}
	})
}
