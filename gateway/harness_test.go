package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/xds/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a gateway that serves on loopback.
type bench struct {
	*Gateway
	t   *testing.T
	log *lines

	mu   sync.Mutex // guards below
	open map[uint16]string
	wait map[uint16]chan struct{}
}

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex // guards below
	buf bytes.Buffer
	got chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	select {
	case l.got <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// find waits for a line that holds all words.
func (l *lines) find(t *testing.T, words ...string) string {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		l.mu.Lock()
		all := l.buf.String()
		l.mu.Unlock()
	next:
		for line := range strings.Lines(all) {
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue next
				}
			}
			return line
		}
		select {
		case <-l.got:
		case <-limit:
			t.Fatalf("no access line with %q in:\n%s", words, all)
		}
	}
}

// start runs a gateway until the test ends. Each port of its table is some free port of loopback; see at.
func start(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, log: &lines{got: make(chan struct{}, 1)}, open: map[uint16]string{}, wait: map[uint16]chan struct{}{}}
	c := Config{
		AccessLog: b.log, Grace: 2 * time.Second, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Listen: b.listenTCP,
	}
	if change != nil {
		change(&c)
	}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	b.Gateway = g
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return b
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (b *bench) waitLocked(port uint16) chan struct{} {
	if b.wait[port] == nil {
		b.wait[port] = make(chan struct{})
	}
	return b.wait[port]
}

// at is where a port of the table listens.
func (b *bench) at(port uint16) string {
	b.t.Helper()
	b.mu.Lock()
	c := b.waitLocked(port)
	b.mu.Unlock()
	select {
	case <-c:
	case <-time.After(5 * time.Second):
		b.t.Fatalf("port %d was not opened", port)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open[port]
}

// give takes one resource of any type into force, as the xDS client does.
func (b *bench) give(m proto.Message) error {
	switch m := m.(type) {
	case *l7.Listener:
		return b.takeListeners([]client.Item[*l7.Listener]{{Name: m.Name, Body: m}}, nil)
	case *l7.Route:
		return b.takeRoutes([]client.Item[*l7.Route]{{Name: m.Name, Body: m}}, nil)
	case *l7.Backend:
		return b.takeBackends([]client.Item[*l7.Backend]{{Name: m.Name, Body: m}}, nil)
	case *l7.Secret:
		return b.takeSecrets([]client.Item[*l7.Secret]{{Name: m.Name, Body: m}}, nil)
	}
	return fmt.Errorf("no resource: %T", m)
}

// apply takes resources into force; each must be accepted.
func (b *bench) apply(ms ...proto.Message) {
	b.t.Helper()
	for _, m := range ms {
		if err := b.give(m); err != nil {
			b.t.Fatal(err)
		}
	}
}

func listener(port uint32, hosts ...string) *l7.Listener {
	return &l7.Listener{Name: "l" + strconv.Itoa(int(port)), Port: port, ServicePort: 80, Protocol: l7.Protocol_HTTP, Hosts: hosts, Routes: "web"}
}

func route(host string, rules ...*l7.Rule) *l7.Route {
	return &l7.Route{Name: "r/" + host, Set: "web", Hosts: []string{host}, Rules: rules}
}

func to(backend string, matches ...*l7.Match) *l7.Rule {
	return &l7.Rule{Matches: matches, Action: &l7.Rule_Forward{Forward: &l7.Forward{Destinations: []*l7.Destination{{Backend: backend, Weight: 1}}}}}
}

func prefix(p string) *l7.Match {
	return &l7.Match{Path: &l7.StringMatch{Kind: &l7.StringMatch_Prefix{Prefix: p}}}
}

func exact(p string) *l7.Match {
	return &l7.Match{Path: &l7.StringMatch{Kind: &l7.StringMatch_Exact{Exact: p}}}
}

func backend(name string, at ...string) *l7.Backend {
	b := &l7.Backend{Name: name, Namespace: "default", Hostname: name + ".default.svc.cluster.local", Port: 80}
	for _, a := range at {
		ap := netip.MustParseAddrPort(a)
		b.Endpoints = append(b.Endpoints, &l7.Endpoint{Address: ap.Addr().String(), Port: uint32(ap.Port())})
	}
	return b
}

// web starts a backend and counts the bytes that reach it.
func web(t *testing.T, h http.HandlerFunc) (at string, received func() int64) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	count := &countingListener{Listener: s.Listener}
	s.Listener = count
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), count.total
}

type countingListener struct {
	net.Listener
	mu sync.Mutex // guards below
	n  int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{c, l}, nil
}

func (l *countingListener) total() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

type countingConn struct {
	net.Conn
	l *countingListener
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.l.mu.Lock()
	c.l.n += int64(n)
	c.l.mu.Unlock()
	return n, err
}

// browser makes a client that keeps nothing open after the test.
func browser(t *testing.T) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is what a request got.
type answer struct {
	status int
	body   string
	header http.Header
}

func fetch(t *testing.T, c *http.Client, req *http.Request) answer {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, string(body), resp.Header}
}

// get asks for a URL, optionally with a Host.
func get(t *testing.T, c *http.Client, url, host string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	return fetch(t, c, req)
}

// raw sends bytes and reads until the gateway closes the connection.
func raw(t *testing.T, addr, bytes string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, bytes); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatalf("after %q: %v", out, err)
	}
	return string(out)
}

// listenTCP opens a free port of loopback for a port of the table.
func (b *bench) listenTCP(_ context.Context, addr netip.AddrPort) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		b.mu.Lock()
		b.open[addr.Port()] = l.Addr().String()
		close(b.waitLocked(addr.Port()))
		b.mu.Unlock()
	}
	return l, err
}

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// heapInUse is what is held after a collection.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
