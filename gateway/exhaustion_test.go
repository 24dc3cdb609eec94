package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
)

// inMemory runs a gateway and one backend in the test's bubble.
func inMemory(t *testing.T, h http.HandlerFunc) (front *memnet.Listener, end func()) {
	front, back := memnet.Listen("10.0.0.1:8080"), memnet.Listen("10.0.0.2:80")
	s := &http.Server{Handler: h}
	go s.Serve(back) //nolint:errcheck // it ends with the test
	g, err := New(Config{
		Listen: func(context.Context, netip.AddrPort) (net.Listener, error) { return front, nil },
		Dial:   func(ctx context.Context, _, _ string) (net.Conn, error) { return back.Dial(ctx) },
		Grace:  time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Gateway: g, t: t}
	b.apply(backend("web", "10.0.0.2:80"), route("*", to("web")), listener(8080, "*"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	synctest.Wait()
	return front, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	}
}

func connect(t *testing.T, front *memnet.Listener) net.Conn {
	t.Helper()
	c, err := front.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// works is an ordinary client among hostile ones.
func works(t *testing.T, front *memnet.Listener) {
	t.Helper()
	c := connect(t, front)
	defer c.Close()
	began := time.Now()
	io.WriteString(c, "GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") //nolint:errcheck // seen below
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 || time.Since(began) > time.Second {
		t.Fatalf("an ordinary client: %v, %v after %s", resp, err, time.Since(began))
	}
	resp.Body.Close()
}

// RS-01: clients that send their heads drop by drop are gone within 30 s, and nobody else notices.
func TestRS01SlowHeadsAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		front, end := inMemory(t, func(http.ResponseWriter, *http.Request) {})
		defer end()
		var open atomic.Int64
		var all sync.WaitGroup
		defer all.Wait()
		began := time.Now()
		for range 2000 {
			c := connect(t, front)
			open.Add(1)
			all.Go(func() {
				io.Copy(io.Discard, c) //nolint:errcheck // it ends when the gateway closes
				open.Add(-1)
				c.Close()
			})
			all.Go(func() {
				for _, b := range []byte("GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyyy") {
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(9 * time.Second)
				}
			})
		}
		works(t, front)
		for open.Load() > 0 && time.Since(began) < time.Minute {
			time.Sleep(time.Second)
		}
		if n, took := open.Load(), time.Since(began); n > 0 || took > 30*time.Second {
			t.Errorf("%d connections are still open after %s", n, took)
		}
		works(t, front)
	})
}

// RS-02: bodies that stand still, and readers that do not read, hold no more than buffers, and not for ever.
func TestRS02SlowBodiesAndReadersAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		front, end := inMemory(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) //nolint:errcheck // ends when the gateway gives up
			if r.URL.Path == "/big" {
				io.CopyN(w, zeros{}, 64<<20) //nolint:errcheck // as above
			}
		})
		defer end()
		var all []net.Conn
		for range 500 {
			c := connect(t, front)
			io.WriteString(c, "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx") //nolint:errcheck // it stands still now
			all = append(all, c)
		}
		for range 100 {
			c := connect(t, front)
			io.WriteString(c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n") //nolint:errcheck // it never reads
			all = append(all, c)
		}
		synctest.Wait()
		if heap := heapInUse(); heap > 200<<20 {
			t.Errorf("%d MiB of heap for 600 connections that stand still", heap>>20)
		}
		works(t, front)
		time.Sleep(6 * time.Minute)
		for i, c := range all {
			c.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := io.Copy(io.Discard, c); err != nil && isTimeout(err) {
				t.Fatalf("connection %d is still open", i)
			}
			c.Close()
		}
		works(t, front)
	})
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error) //nolint:errorlint // as it comes from the connection
	return ok && n.Timeout()
}

// exhausted is a listener without descriptors for a while.
type exhausted struct {
	*memnet.Listener
	until time.Time
	asked atomic.Int64
}

func (l *exhausted) Accept() (net.Conn, error) {
	if l.asked.Add(1); time.Now().Before(l.until) {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// RS-08: out of descriptors, the gateway waits instead of spinning, and goes on when there are some again.
func TestRS08AcceptDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &exhausted{Listener: memnet.Listen("10.0.0.1:8080"), until: time.Now().Add(time.Minute)}
		g, err := New(Config{Listen: func(context.Context, netip.AddrPort) (net.Listener, error) { return l, nil }, Grace: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{Gateway: g, t: t}
		ok := &l7.Rule{Action: &l7.Rule_DirectResponse{DirectResponse: &l7.DirectResponse{Status: 200}}}
		b.apply(route("*", ok), listener(8080, "*"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		time.Sleep(time.Minute)
		if n := l.asked.Load(); n > 100 {
			t.Errorf("accept was tried %d times in a minute", n)
		}
		time.Sleep(2 * time.Second)
		works(t, l.Listener)
		cancel()
		<-done
	})
}

// RS-09: conditions on paths cost little however many there are, because most fail at their first bytes.
func TestRS09ManyExpressionsOnALongPath(t *testing.T) {
	r := &l7.Route{Name: "r", Set: "s", Hosts: []string{"*"}}
	for i := range 10_000 {
		m := &l7.Match{Path: &l7.StringMatch{Kind: &l7.StringMatch_Regex{Regex: fmt.Sprintf("/service-%d/(a+)+/[^/]*", i)}}}
		for j := range 2 { // the machine that compiles them is slow; they are never asked
			m.Headers = append(m.Headers, &l7.KeyMatch{Name: fmt.Sprint("x-", j), Value: &l7.StringMatch{Kind: &l7.StringMatch_Regex{Regex: "(a|b)+c"}}})
		}
		r.Rules = append(r.Rules, &l7.Rule{Matches: []*l7.Match{m}, Action: &l7.Rule_DirectResponse{DirectResponse: &l7.DirectResponse{Status: 200}}})
	}
	b := table.NewBuilder()
	if err := b.SetRoute(r); err != nil {
		t.Fatal(err)
	}
	if err := b.SetListener(&l7.Listener{Name: "l", Port: 80, Protocol: l7.Protocol_HTTP, Hosts: []string{"*"}, Routes: "s"}); err != nil {
		t.Fatal(err)
	}
	set := b.Build().Ports[0].Listeners[0].Set
	path := "/service-"
	for len(path) < 8<<10 {
		path += "a"
	}
	best := time.Hour
	for range 50 { // the best of several: the machine has other things to do
		began := time.Now()
		if _, ok := set.Match(&table.Query{Host: "a", Path: path}); ok {
			t.Fatal("matched")
		}
		best = min(best, time.Since(began))
	}
	if best > 5*time.Millisecond {
		t.Errorf("a request took %s to match 10,000 rules", best)
	}
	t.Logf("%s for 10,000 rules", best)
}
