package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/internal/testkit/podtest"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/proxy"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// world is a bridge with pods, and the proxies of those that are captured.
type world struct {
	t      *testing.T
	v6     bool
	bridge *netns.Namespace
	ca     *fakeca.CA
	store  *state.Store
	log    *lines
	conf   proxy.Config
	near   atomic.Pointer[func(*state.Workload) *proxy.Proxy] // nil: all go through tunnels
}

func newWorld(t *testing.T) *world {
	t.Helper()
	netnstest.NothingLeft(t)
	w := &world{t: t, v6: strings.HasPrefix(t.Name(), "TestIPv6/"), bridge: podtest.Bridge(t), ca: fakeca.New(t), log: newLines()}
	w.store = state.New(state.Config{TrustDomain: fakeca.TrustDomain, Pick: func(uint64) uint64 { return 0 }})
	levels, err := telemetry.ParseLevels("info")
	w.must(err)
	h := telemetry.NewHandler(w.log, telemetry.Text, levels)
	w.conf = proxy.Config{
		State: w.store, Source: w.ca, Roots: w.ca, TrustDomain: fakeca.TrustDomain, Cluster: "Kubernetes",
		Access: telemetry.NewAccess(h), TCP: telemetry.NewMetrics("ztunnel", "test").TCP, Log: slog.New(h), Grace: 200 * time.Millisecond, Wait: 300 * time.Millisecond,
	}
	w.conf.Neighbour = func(x *state.Workload) *proxy.Proxy {
		near := w.near.Load()
		if near == nil {
			return nil
		}
		return (*near)(x)
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// ip is an address of the tests' IPv4, or what stands for it in a world of IPv6.
func (w *world) ip(v4 string) netip.Addr { return netip.MustParseAddr(w.text(v4)) }

// text puts the world's addresses in place of those of IPv4: bare, or in brackets before a port.
func (w *world) text(s string) string {
	if !w.v6 {
		return s
	}
	s = regexp.MustCompile(`\b10\.0\.0\.(\d+):`).ReplaceAllString(s, "[fd00::$1]:")
	s = regexp.MustCompile(`\b10\.96\.0\.(\d+):`).ReplaceAllString(s, "[fd00:96::$1]:")
	s = regexp.MustCompile(`\b10\.0\.0\.(\d+)`).ReplaceAllString(s, "fd00::$1")
	s = regexp.MustCompile(`\b10\.96\.0\.(\d+)`).ReplaceAllString(s, "fd00:96::$1")
	return strings.ReplaceAll(strings.ReplaceAll(s, "127.0.0.1:", "[::1]:"), "127.0.0.1", "::1")
}

// quiet logs only what went wrong: a test with many connections.
func (w *world) quiet() {
	levels, err := telemetry.ParseLevels("warn,access=error")
	w.must(err)
	h := telemetry.NewHandler(w.log, telemetry.Text, levels)
	w.conf.Access, w.conf.Log = telemetry.NewAccess(h), slog.New(h)
}

// pod is a namespace with one address.
type pod struct {
	w     *world
	ns    *netns.Namespace
	name  string
	ip    netip.Addr
	proxy *proxy.Proxy
	stop  func()
}

func (p *pod) id() identity.ID {
	return identity.ID{TrustDomain: fakeca.TrustDomain, Namespace: "default", ServiceAccount: p.name}
}

func (p *pod) at(port uint16) netip.AddrPort { return netip.AddrPortFrom(p.ip, port) }

// outside makes a pod that the mesh does not know.
func (w *world) outside(name, addr string) *pod {
	w.t.Helper()
	ip := w.ip(addr)
	return &pod{w: w, ns: podtest.Pod(w.t, w.bridge, name, ip), name: name, ip: ip}
}

// workload describes a captured pod to the store.
func (w *world) workload(p *pod, change ...func(*workload.Workload)) {
	w.t.Helper()
	x := &workload.Workload{
		Uid: "Kubernetes//Pod/default/" + p.name, Name: p.name, Namespace: "default", Addresses: [][]byte{p.ip.AsSlice()},
		TunnelProtocol: workload.TunnelProtocol_HBONE, ServiceAccount: p.name, ClusterId: "Kubernetes",
		WorkloadName: p.name, CanonicalName: p.name,
		Services: map[string]*workload.PortList{
			"default/" + p.name + ".default.svc.cluster.local": {Ports: []*workload.Port{{ServicePort: 80, TargetPort: 9080}}},
		},
	}
	for _, f := range change {
		f(x)
	}
	w.must(w.store.ApplyAddresses(state.Addresses{Set: []*workload.Address{{Type: &workload.Address_Workload{Workload: x}}}}))
}

// service gives a pod a virtual address.
func (w *world) service(p *pod, vip string) netip.AddrPort {
	w.t.Helper()
	addr := w.ip(vip)
	w.must(w.store.ApplyAddresses(state.Addresses{Set: []*workload.Address{{Type: &workload.Address_Service{Service: &workload.Service{
		Name: p.name, Namespace: "default", Hostname: p.name + ".default.svc.cluster.local",
		Addresses: []*workload.NetworkAddress{{Address: addr.AsSlice()}}, Ports: []*workload.Port{{ServicePort: 80, TargetPort: 9080}},
	}}}}}))
	return netip.AddrPortFrom(addr, 80)
}

// captured makes a pod of the mesh: known, redirected and served.
func (w *world) captured(name, ip string) *pod {
	w.t.Helper()
	p := w.outside(name, ip)
	w.workload(p)
	podtest.Capture(w.t, p.ns)
	w.serve(p)
	return p
}

func (w *world) serve(p *pod) {
	w.t.Helper()
	var err error
	p.proxy, err = proxy.Open(w.conf, proxy.Pod{UID: p.name, Name: p.name, Namespace: "default", ServiceAccount: p.name, NS: p.ns})
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.proxy.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("proxy of %s: %v", p.name, err)
			}
		case <-time.After(10 * time.Second):
			w.t.Errorf("proxy of %s did not end", p.name)
		}
	})
	w.t.Cleanup(p.stop)
}

// over waits until no connection of the pods is open.
func (w *world) over(pods ...*pod) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Second)
	for _, p := range pods {
		for len(p.proxy.Connections()) > 0 {
			select {
			case <-tick.C:
			case <-deadline:
				w.t.Fatalf("still open at %s: %+v", p.name, p.proxy.Connections())
			}
		}
	}
}

// policies replaces nothing: it adds.
func (w *world) policies(ps ...*authorization.Authorization) {
	w.t.Helper()
	w.must(w.store.ApplyPolicies(state.Policies{Set: ps}))
}

// backend is an application's server in a pod. It counts what reaches it.
type backend struct {
	conns atomic.Int64
	bytes atomic.Int64
	seen  chan netip.AddrPort // who connected
}

func (p *pod) listen(port uint16, serve func(*net.TCPConn)) *backend {
	p.w.t.Helper()
	l, err := sock.Listen(p.ns, p.at(port), sock.Options{})
	p.w.must(err)
	b := &backend{seen: make(chan netip.AddrPort, 100)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if errors.Is(err, syscall.EMFILE) {
				time.Sleep(time.Millisecond) // a test of what the proxy does then
				continue
			}
			if err != nil {
				return
			}
			b.conns.Add(1)
			select {
			case b.seen <- c.RemoteAddr().(*net.TCPAddr).AddrPort():
			default: // nobody looks
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	p.w.t.Cleanup(func() { l.Close(); wg.Wait() })
	return b
}

// echo answers what it reads, and counts it.
func (p *pod) echo(port uint16) *backend {
	p.w.t.Helper()
	var b *backend
	ready := make(chan struct{})
	b = p.listen(port, func(c *net.TCPConn) {
		<-ready
		buf := make([]byte, 32<<10)
		for {
			n, err := c.Read(buf)
			b.bytes.Add(int64(n))
			if _, werr := c.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	})
	close(ready)
	return b
}

func (p *pod) dial(to netip.AddrPort) *net.TCPConn {
	p.w.t.Helper()
	c, err := sock.Dial(p.w.t.Context(), p.ns, netip.AddrPort{}, to, sock.Options{})
	p.w.must(err)
	p.w.must(c.SetDeadline(time.Now().Add(5 * time.Second)))
	p.w.t.Cleanup(func() { c.Close() })
	return c
}

// connect dials; nil if nobody takes it.
func (p *pod) connect(ctx context.Context, to netip.AddrPort) *net.TCPConn {
	c, err := sock.Dial(ctx, p.ns, netip.AddrPort{}, to, sock.Options{})
	if err != nil {
		return nil
	}
	return c
}

// says sends text through a new connection and wants it back.
func (p *pod) says(to netip.AddrPort, text string) {
	p.w.t.Helper()
	c := p.dial(to)
	if got := exchange(c, text); got != text {
		p.w.t.Fatalf("%s to %s: got %q back, want %q\n%s", p.name, to, got, text, p.w.log)
	}
	c.Close()
}

func exchange(c net.Conn, text string) string {
	if _, err := io.WriteString(c, text); err != nil {
		return err.Error()
	}
	b := make([]byte, len(text))
	n, err := io.ReadFull(c, b)
	if err != nil {
		return string(b[:n]) + err.Error()
	}
	return string(b)
}

// refused opens a connection, sends, and wants it to end within a second with no byte.
func (p *pod) refused(to netip.AddrPort) {
	p.w.t.Helper()
	c, err := sock.Dial(p.w.t.Context(), p.ns, netip.AddrPort{}, to, sock.Options{})
	if err != nil {
		return
	}
	defer c.Close()
	p.w.must(c.SetDeadline(time.Now().Add(time.Second)))
	_, _ = io.WriteString(c, "secret") // it may be closed already
	b := make([]byte, 10)
	n, err := c.Read(b)
	if n > 0 || err == nil {
		p.w.t.Errorf("%s to %s: read %q, want a refusal", p.name, to, b[:n])
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		p.w.t.Errorf("%s to %s: still open after a second", p.name, to)
	}
}

// lines is a log that can be awaited.
type lines struct {
	mu      sync.Mutex // guards below
	b       bytes.Buffer
	changed chan struct{}
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// want waits for a line with all the parts.
func (w *world) want(parts ...string) {
	w.t.Helper()
	deadline := time.After(3 * time.Second)
	for {
		w.log.mu.Lock()
		changed := w.log.changed
		w.log.mu.Unlock()
		for line := range strings.Lines(w.log.String()) {
			all := true
			for _, part := range parts {
				all = all && strings.Contains(line, w.text(part))
			}
			if all {
				return
			}
		}
		select {
		case <-changed:
		case <-deadline:
			w.t.Fatalf("no line of the log has %q:\n%s", parts, w.log)
		}
	}
}
