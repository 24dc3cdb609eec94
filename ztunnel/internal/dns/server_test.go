package dns_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/internal/testkit/podtest"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/dns"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// known is a mesh that knows addresses by name.
type known map[string][]netip.Addr

func (k known) Named(host, _ string) ([]netip.Addr, bool) { a, ok := k[host]; return a, ok }

// captureDNS redirects a pod's queries, in substance as the node agent does.
func captureDNS(t *testing.T, ns *netns.Namespace) {
	t.Helper()
	other := nft.NotMark(mesh.Mark, mesh.MarkMask)
	must(t, nft.Apply(ns,
		nft.Table{Family: nft.INet, Name: "dns", Chains: []nft.Chain{{Name: "out", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDNAT, Rules: []nft.Rule{
			nft.If(nft.NotOutIface("lo"), nft.UDP(), nft.Dport(53), other).Then(nft.Redirect(mesh.PortDNS)),
			nft.If(nft.NotDaddr(netip.MustParsePrefix("127.0.0.1/32")), nft.TCP(), nft.Dport(53), other).Then(nft.Redirect(mesh.PortDNS)),
			nft.If(nft.NotDaddr(netip.MustParsePrefix("::1/128")), nft.TCP(), nft.Dport(53), other).Then(nft.Redirect(mesh.PortDNS)),
		}}}},
		nft.Table{Family: nft.INet, Name: "zone", Chains: []nft.Chain{
			{Name: "pre", Type: nft.Filter, Hook: nft.Prerouting, Priority: nft.PriorityRaw, Rules: []nft.Rule{nft.If(nft.UDP(), nft.Sport(53), other).Then(nft.SetCTZone(1))}},
			{Name: "out", Type: nft.Filter, Hook: nft.Output, Priority: nft.PriorityRaw, Rules: []nft.Rule{nft.If(nft.UDP(), nft.Dport(53), nft.Mark(mesh.Mark, mesh.MarkMask)).Then(nft.SetCTZone(1))}},
		}}))
}

// world is a pod with a proxy, and a resolver outside it.
type world struct {
	t           *testing.T
	bridge, pod *netns.Namespace
	resolver    netip.AddrPort
	metrics     *telemetry.DNS
}

func newWorld(t *testing.T, change func(*dns.Config)) *world {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) }) // after all that is cleaned up below
	w := &world{t: t, bridge: podtest.Bridge(t), resolver: netip.MustParseAddrPort("10.0.0.254:53"), metrics: telemetry.NewDNS()}
	w.pod = podtest.Pod(t, w.bridge, "a", netip.MustParseAddr("10.0.0.1"))
	captureDNS(t, w.pod)
	c := dns.Config{
		Names: known{
			"web.default.svc.cluster.local": {netip.MustParseAddr("10.96.0.7"), netip.MustParseAddr("fd00::7")},
			"big.default.svc.cluster.local": many(200),
			"v6.default.svc.cluster.local":  {netip.MustParseAddr("fd00::6")},
		},
		Resolvers: []netip.AddrPort{w.resolver}, Metrics: w.metrics, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	s, err := dns.Open(c, dns.Pod{Name: "a", Namespace: "default", NS: w.pod})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	return w
}

// count sums up a family of counters.
func (w *world) count(name string) (sum float64) {
	w.t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(w.metrics.Collectors()...)
	all, err := r.Gather()
	must(w.t, err)
	for _, f := range all {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func many(n int) (out []netip.Addr) {
	for i := range n {
		out = append(out, netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}))
	}
	return out
}

// upstream is a resolver outside the pod that answers every name but "gone." and notes who asks.
func (w *world) upstream() (asked func() []string) {
	w.t.Helper()
	var mu sync.Mutex
	var log []string
	handler := mdns.HandlerFunc(func(rw mdns.ResponseWriter, q *mdns.Msg) {
		from := netip.MustParseAddrPort(rw.RemoteAddr().String()).Addr()
		mu.Lock()
		log = append(log, from.String()+" "+rw.RemoteAddr().Network()+" "+q.Question[0].Name+" "+mdns.TypeToString[q.Question[0].Qtype])
		mu.Unlock()
		r := new(mdns.Msg).SetReply(q)
		if q.Question[0].Name == "gone." {
			r.Rcode = mdns.RcodeNameError
		} else {
			r.Answer = []mdns.RR{&mdns.TXT{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeTXT, Class: mdns.ClassINET, Ttl: 7}, Txt: []string{"outside"}}}
		}
		_ = rw.WriteMsg(r) // the client misses it
	})
	u, err := sock.ListenUDP(w.bridge, w.resolver, sock.Options{})
	must(w.t, err)
	l, err := sock.Listen(w.bridge, w.resolver, sock.Options{})
	must(w.t, err)
	var wg sync.WaitGroup
	w.t.Cleanup(wg.Wait) // last, after both are shut down
	for _, s := range []*mdns.Server{{PacketConn: u, Handler: handler}, {Listener: l, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() { _ = s.ActivateAndServe() }) // ends with Shutdown
		<-started
		w.t.Cleanup(func() { must(w.t, s.Shutdown()) })
	}
	return func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(log) }
}

// ask sends a query from the pod to a resolver that it knows.
func (w *world) ask(network, name string, qtype uint16, opts ...func(*mdns.Msg)) *mdns.Msg {
	w.t.Helper()
	var c net.Conn
	var err error
	if network == "tcp" {
		c, err = sock.Dial(w.t.Context(), w.pod, netip.AddrPort{}, w.resolver, sock.Options{})
	} else {
		c, err = sock.DialUDP(w.pod, w.resolver, sock.Options{})
	}
	must(w.t, err)
	defer c.Close()
	must(w.t, c.SetDeadline(time.Now().Add(6*time.Second)))
	q := new(mdns.Msg).SetQuestion(name, qtype)
	for _, o := range opts {
		o(q)
	}
	conn := &mdns.Conn{Conn: c, UDPSize: 4096}
	must(w.t, conn.WriteMsg(q))
	r, err := conn.ReadMsg()
	must(w.t, err)
	if r.Id != q.Id {
		w.t.Errorf("%s: id %d, want %d", name, r.Id, q.Id)
	}
	return r
}

func text(r *mdns.Msg) string {
	var all []string
	for _, rr := range r.Answer {
		all = append(all, strings.Join(strings.Fields(rr.String()), " "))
	}
	slices.Sort(all)
	return mdns.RcodeToString[r.Rcode] + " " + strings.Join(all, ", ")
}

func TestNamesOfTheMesh(t *testing.T) { // BP-14
	w := newWorld(t, nil) // and no resolver at all: nothing of this asks it
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"web.default.svc.cluster.local.", mdns.TypeA, "NOERROR web.default.svc.cluster.local. 30 IN A 10.96.0.7"},
		{"Web.default.svc.cluster.local.", mdns.TypeAAAA, "NOERROR Web.default.svc.cluster.local. 30 IN AAAA fd00::7"},
		{"web.", mdns.TypeA, "NOERROR web. 30 IN A 10.96.0.7"},
		{"v6.default.", mdns.TypeA, "NOERROR "}, // known, and not of this family
		{"v6.default.svc.cluster.local.svc.cluster.local.", mdns.TypeA, "NOERROR "},
		{
			"web.default.svc.cluster.local.svc.cluster.local.", mdns.TypeA,
			"NOERROR web.default.svc.cluster.local. 30 IN A 10.96.0.7, web.default.svc.cluster.local.svc.cluster.local. 30 IN CNAME web.default.svc.cluster.local.",
		},
	} {
		for _, network := range []string{"udp", "tcp"} {
			r := w.ask(network, tc.name, tc.qtype)
			if got := text(r); got != tc.want || !r.Authoritative {
				t.Errorf("%s %s: %q, want %q", network, tc.name, got, tc.want)
			}
		}
	}
	if n := w.count("istio_dns_requests_total"); n != 12 {
		t.Errorf("istio_dns_requests_total is %v, want 12", n)
	}
}

func TestSizeOfAnswers(t *testing.T) {
	w := newWorld(t, nil)
	if r := w.ask("udp", "big.", mdns.TypeA); !r.Truncated || len(r.Answer) != 0 {
		t.Errorf("a client of 512 bytes got %d answers, truncated %v", len(r.Answer), r.Truncated)
	}
	if r := w.ask("udp", "big.", mdns.TypeA, func(m *mdns.Msg) { m.SetEdns0(4096, false) }); r.Truncated || len(r.Answer) != 200 || r.IsEdns0() == nil {
		t.Errorf("a client of 4096 bytes got %d answers, truncated %v, %v", len(r.Answer), r.Truncated, r.IsEdns0())
	}
	first, shuffled := w.ask("tcp", "big.", mdns.TypeA), false
	for range 10 {
		r := w.ask("tcp", "big.", mdns.TypeA)
		if len(r.Answer) != 200 {
			t.Fatalf("%d answers over TCP", len(r.Answer))
		}
		shuffled = shuffled || r.Answer[0].String() != first.Answer[0].String() || r.Answer[1].String() != first.Answer[1].String()
	}
	if !shuffled {
		t.Error("the order of addresses never changes")
	}
}

func TestTheRestIsForwarded(t *testing.T) {
	w := newWorld(t, nil)
	asked := w.upstream()
	for _, network := range []string{"udp", "tcp"} {
		for _, tc := range []struct {
			name  string
			qtype uint16
			want  string
		}{
			{"example.com.", mdns.TypeTXT, `NOERROR example.com. 7 IN TXT "outside"`},
			{"web.default.svc.cluster.local.", mdns.TypeTXT, `NOERROR web.default.svc.cluster.local. 7 IN TXT "outside"`}, // known, but of a type that is not ours
			{"gone.", mdns.TypeA, "NXDOMAIN "},
		} {
			if got := text(w.ask(network, tc.name, tc.qtype)); got != tc.want {
				t.Errorf("%s %s: %q, want %q", network, tc.name, got, tc.want)
			}
		}
	}
	want := []string{
		"10.0.0.1 udp example.com. TXT", "10.0.0.1 udp web.default.svc.cluster.local. TXT", "10.0.0.1 udp gone. A",
		"10.0.0.1 tcp example.com. TXT", "10.0.0.1 tcp web.default.svc.cluster.local. TXT", "10.0.0.1 tcp gone. A",
	}
	if got := asked(); !slices.Equal(got, want) {
		t.Errorf("the resolver was asked\n%q, want\n%q", got, want)
	}
	if up, bad := w.count("istio_dns_upstream_requests_total"), w.count("istio_dns_upstream_failures_total"); up != 6 || bad != 0 {
		t.Errorf("%v upstream requests and %v failures, want 6 and 0", up, bad)
	}
}

func TestResolverAway(t *testing.T) { // BP-14
	t.Run("its port is closed", func(t *testing.T) {
		w := newWorld(t, nil)
		for _, network := range []string{"udp", "tcp"} {
			began := time.Now()
			if got := text(w.ask(network, "example.com.", mdns.TypeA)); got != "SERVFAIL " || time.Since(began) > 2*time.Second {
				t.Errorf("%s: %q after %s", network, got, time.Since(began))
			}
		}
	})
	t.Run("it says nothing", func(t *testing.T) {
		w := newWorld(t, func(c *dns.Config) { c.Patience, c.OneTry = 400*time.Millisecond, 150*time.Millisecond })
		u, err := sock.ListenUDP(w.bridge, w.resolver, sock.Options{})
		must(t, err)
		defer u.Close()
		if got := text(w.ask("udp", "example.com.", mdns.TypeA)); got != "SERVFAIL " {
			t.Error(got)
		}
		if n := w.count("istio_dns_upstream_failures_total"); n != 1 {
			t.Errorf("%v failures, want one, however often it was tried", n)
		}
		if got := text(w.ask("udp", "web.", mdns.TypeA)); got != "NOERROR web. 30 IN A 10.96.0.7" {
			t.Error(got)
		}
	})
	t.Run("there is none", func(t *testing.T) {
		w := newWorld(t, func(c *dns.Config) { c.Resolvers = nil })
		if got := text(w.ask("udp", "example.com.", mdns.TypeA)); got != "SERVFAIL " {
			t.Error(got)
		}
	})
}

func TestForgedAnswersAreNotTaken(t *testing.T) {
	w := newWorld(t, func(c *dns.Config) { c.Patience, c.OneTry = 2*time.Second, 2*time.Second })
	u, err := sock.ListenUDP(w.bridge, w.resolver, sock.Options{})
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 512)
		n, from, err := u.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		q := new(mdns.Msg)
		if q.Unpack(b[:n]) != nil {
			return
		}
		send := func(change func(*mdns.Msg)) {
			r := new(mdns.Msg).SetReply(q)
			change(r)
			out, err := r.Pack()
			if err == nil {
				_, err = u.WriteToUDPAddrPort(out, from)
			}
			if err != nil {
				t.Error(err)
			}
		}
		send(func(r *mdns.Msg) { r.Id++ })
		send(func(r *mdns.Msg) { r.Response = false })
		send(func(r *mdns.Msg) { r.Question[0].Name = "forged.example." })
		send(func(r *mdns.Msg) { r.Rcode = mdns.RcodeRefused }) // the true one
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { u.Close() })
	if got := text(w.ask("udp", "example.com.", mdns.TypeA)); got != "REFUSED " {
		t.Error(got)
	}
}

func TestOnlyThePodIsAnswered(t *testing.T) { // BP-03, BP-16
	w := newWorld(t, nil)
	at := netip.MustParseAddrPort("10.0.0.1:15053")
	u, err := sock.DialUDP(w.bridge, at, sock.Options{})
	must(t, err)
	defer u.Close()
	must(t, u.SetDeadline(time.Now().Add(5*time.Second)))
	q, err := new(mdns.Msg).SetQuestion("web.", mdns.TypeA).Pack()
	must(t, err)
	_, err = u.Write(q)
	must(t, err)
	if n, err := u.Read(make([]byte, 512)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a query from outside: %d bytes, %v; want it refused", n, err)
	}
	if c, err := sock.Dial(t.Context(), w.bridge, netip.AddrPort{}, at, sock.Options{}); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a connection from outside: %v, want it refused", err)
		if c != nil {
			c.Close()
		}
	}
	c, err := sock.Dial(t.Context(), w.pod, netip.AddrPort{}, netip.MustParseAddrPort("127.0.0.1:15053"), sock.Options{})
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(time.Second)))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the pod dialled the proxy itself: %d bytes, %v; want it closed", n, err)
	}
}

func TestJunkIsNotAnswered(t *testing.T) {
	w := newWorld(t, nil)
	u, err := sock.DialUDP(w.pod, w.resolver, sock.Options{})
	must(t, err)
	defer u.Close()
	response := new(mdns.Msg).SetQuestion("web.", mdns.TypeA)
	response.Response = true
	packed, err := response.Pack()
	must(t, err)
	for _, junk := range [][]byte{{}, {1}, make([]byte, 11), packed} {
		_, err := u.Write(junk)
		must(t, err)
	}
	q := new(mdns.Msg).SetQuestion("web.", mdns.TypeA)
	packed, err = q.Pack()
	must(t, err)
	_, err = u.Write(packed)
	must(t, err)
	must(t, u.SetDeadline(time.Now().Add(5*time.Second)))
	r, err := (&mdns.Conn{Conn: u}).ReadMsg() // the first answer is to the last packet
	must(t, err)
	if r.Id != q.Id || text(r) != "NOERROR web. 30 IN A 10.96.0.7" {
		t.Errorf("first answer: %v", r)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
