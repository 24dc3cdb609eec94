package dns_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/internal/testkit/podtest"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/dns"
)

// registrar is a resolver outside a pod; it counts queries by name.
type registrar struct {
	asked   sync.Map // name → *atomic.Int64
	answers func(q mdns.Question, tcp bool) []mdns.RR
}

func (g *registrar) count(name string) int64 {
	n, _ := g.asked.LoadOrStore(name, new(atomic.Int64))
	return n.(*atomic.Int64).Load()
}

func (g *registrar) ServeDNS(w mdns.ResponseWriter, q *mdns.Msg) {
	n, _ := g.asked.LoadOrStore(q.Question[0].Name, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	tcp := w.RemoteAddr().Network() == "tcp"
	r := new(mdns.Msg).SetReply(q)
	r.Answer = g.answers(q.Question[0], tcp)
	if strings.HasPrefix(q.Question[0].Name, "nobody.") {
		r.Rcode = mdns.RcodeNameError
	}
	if strings.HasPrefix(q.Question[0].Name, "big.") && !tcp {
		r.Truncated, r.Answer = true, nil
	}
	_ = w.WriteMsg(r) // the client misses it
}

func newHosts(t *testing.T, g *registrar) (*dns.Hosts, *netns.Namespace) {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	bridge := podtest.Bridge(t)
	pod := podtest.Pod(t, bridge, "a", netip.MustParseAddr("10.0.0.1"))
	at := netip.MustParseAddrPort("10.0.0.254:53")
	u, err := sock.ListenUDP(bridge, at, sock.Options{})
	must(t, err)
	l, err := sock.Listen(bridge, at, sock.Options{})
	must(t, err)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	for _, s := range []*mdns.Server{{PacketConn: u, Handler: g}, {Listener: l, Handler: g}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() { _ = s.ActivateAndServe() }) // ends with Shutdown
		<-started
		t.Cleanup(func() { must(t, s.Shutdown()) })
	}
	return dns.NewHosts(dns.Config{Resolvers: []netip.AddrPort{at}, Metrics: telemetry.NewDNS(), Log: slog.New(slog.DiscardHandler)}), pod
}

func record(q mdns.Question, qtype uint16, ttl uint32, ip string) []mdns.RR {
	h := mdns.RR_Header{Name: q.Name, Rrtype: qtype, Class: mdns.ClassINET, Ttl: ttl}
	switch {
	case q.Qtype != qtype:
		return nil
	case qtype == mdns.TypeA:
		return []mdns.RR{&mdns.A{Hdr: h, A: net.ParseIP(ip)}}
	}
	return []mdns.RR{&mdns.AAAA{Hdr: h, AAAA: net.ParseIP(ip)}}
}

func TestHostsOfEndpoints(t *testing.T) {
	g := &registrar{answers: func(q mdns.Question, tcp bool) (out []mdns.RR) {
		switch name := strings.TrimSuffix(q.Name, "."); name {
		case "db.example.com", "quick.example.com":
			ttl := uint32(60)
			if name[0] == 'q' {
				ttl = 0
			}
			return append(record(q, mdns.TypeA, ttl, "192.0.2.7"), record(q, mdns.TypeAAAA, ttl, "2001:db8::7")...)
		case "www.example.com":
			to := mdns.Question{Name: "real.example.net.", Qtype: q.Qtype}
			alias := &mdns.CNAME{Hdr: mdns.RR_Header{Name: q.Name, Rrtype: mdns.TypeCNAME, Class: mdns.ClassINET, Ttl: 60}, Target: to.Name}
			return append([]mdns.RR{alias}, record(to, mdns.TypeA, 60, "192.0.2.8")...)
		case "big.example.com":
			return record(q, mdns.TypeA, 60, "192.0.2.9")
		}
		return nil
	}}
	h, pod := newHosts(t, g)
	look := func(name string) string {
		addrs, err := h.Lookup(t.Context(), pod, name)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(addrs)
	}
	for _, tc := range []struct{ name, want string }{
		{"db.example.com", "[192.0.2.7 2001:db8::7]"},
		{"www.example.com", "[192.0.2.8]"},
		{"big.example.com", "[192.0.2.9]"}, // cut over UDP, whole over TCP
		{"nobody.example.com", "look up nobody.example.com: answer is RCodeNameError\nanswer is RCodeNameError"},
		{"empty.example.com", "look up empty.example.com: it has no address"},
		{"not..a.name", `look up not..a.name: host name`},
	} {
		if got := look(tc.name); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { look("db.example.com"); look("nobody.example.com"); look("quick.example.com") })
	}
	wg.Wait()
	for name, most := range map[string]int64{"db.example.com.": 2, "nobody.example.com.": 2, "quick.example.com.": 2} { // one for each family
		if n := g.count(name); n != most {
			t.Errorf("%s was asked for %d times, want %d", name, n, most)
		}
	}
}

func TestHostLookupEndsWithItsCaller(t *testing.T) {
	release := make(chan struct{})
	g := &registrar{answers: func(q mdns.Question, _ bool) []mdns.RR {
		<-release
		return record(q, mdns.TypeA, 60, "192.0.2.7")
	}}
	h, pod := newHosts(t, g)
	first := make(chan string)
	go func() {
		addrs, err := h.Lookup(context.Background(), pod, "slow.example.com")
		first <- fmt.Sprint(addrs, err)
	}()
	for g.count("slow.example.com.") == 0 {
		time.Sleep(time.Millisecond) // until it is asked
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Lookup(ctx, pod, "slow.example.com"); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("second caller: %v", err)
	}
	close(release)
	if got := <-first; got != "[192.0.2.7] <nil>" {
		t.Errorf("first caller: %s", got)
	}
}
