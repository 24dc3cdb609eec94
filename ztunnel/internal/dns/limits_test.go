package dns_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/ztunnel/internal/dns"
)

// silent is a resolver that takes queries and says nothing. It counts them, and the ports and ids that they came with.
func (w *world) silent() (asked func() (ports, ids, packets int)) {
	w.t.Helper()
	u, err := sock.ListenUDP(w.bridge, w.resolver, sock.Options{})
	must(w.t, err)
	var mu sync.Mutex
	ports, ids, packets := map[uint16]int{}, map[uint16]int{}, 0
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 512)
		for {
			n, from, err := u.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			mu.Lock()
			packets++
			ports[from.Port()]++
			if n > 1 {
				ids[uint16(b[0])<<8|uint16(b[1])]++
			}
			mu.Unlock()
		}
	})
	w.t.Cleanup(func() { u.Close(); wg.Wait() })
	return func() (p, i, n int) { mu.Lock(); defer mu.Unlock(); return len(ports), len(ids), packets }
}

// A pod that asks for more than resolvers answer is told so at once, and goes on getting what the mesh knows.
func TestWaitingQueriesAreBounded(t *testing.T) { // class 21
	const slots, queries = 256, 400
	w := newWorld(t, func(c *dns.Config) { c.Patience, c.OneTry = 5*time.Second, 5*time.Second })
	asked := w.silent()
	u, err := sock.DialUDP(w.pod, w.resolver, sock.Options{})
	must(t, err)
	defer u.Close()
	conn := &mdns.Conn{Conn: u}
	failed := 0
	for i := range queries {
		q := new(mdns.Msg).SetQuestion(fmt.Sprintf("q%d.example.com.", i), mdns.TypeA)
		q.Id = 7 // a client that is easy to guess
		must(t, conn.WriteMsg(q))
		if i < slots { // it waits
			w.until("the resolver has it", func() bool { _, _, n := asked(); return n > i })
			continue
		}
		must(t, u.SetDeadline(time.Now().Add(2*time.Second)))
		r, err := conn.ReadMsg() // it is too many, and told so
		must(t, err)
		if r.Rcode == mdns.RcodeServerFailure {
			failed++
		}
	}
	if failed != queries-slots {
		t.Errorf("%d queries were refused at once, want the %d that are too many", failed, queries-slots)
	}
	began := time.Now()
	if got := text(w.ask("udp", "web.", mdns.TypeA)); got != "NOERROR web. 30 IN A 10.96.0.7" || time.Since(began) > time.Second {
		t.Errorf("meanwhile a name of the mesh: %s after %s", got, time.Since(began))
	}
	// Each query has a port and an id of its own, whatever the client's are.
	if ports, ids, n := asked(); ports < n*9/10 || ids < n*9/10 {
		t.Errorf("%d ports and %d ids for %d queries", ports, ids, n)
	}
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within 5s: %s", what)
		}
	}
}

// settled waits until the pod reaches its own address, whose route the kernel adds a moment after the address.
func (w *world) settled(own netip.Addr) {
	w.t.Helper()
	l, err := sock.ListenUDP(w.pod, netip.AddrPortFrom(own, 999), sock.Options{})
	must(w.t, err)
	defer l.Close()
	c, err := sock.DialUDP(w.pod, netip.AddrPortFrom(own, 999), sock.Options{})
	must(w.t, err)
	defer c.Close()
	for range 500 {
		_, err := c.Write([]byte("here"))
		must(w.t, err)
		must(w.t, l.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
		if _, err := l.Read(make([]byte, 8)); err == nil {
			return
		}
	}
	w.t.Fatal("the pod does not reach its own address")
}

func TestDualStack(t *testing.T) { // BP-14 over IPv6
	v6 := netip.MustParseAddrPort("[fd00::fe]:53")
	w := newWorld(t, func(c *dns.Config) { c.Resolvers = []netip.AddrPort{v6} })
	must(t, link.AddAddr(w.bridge, "br0", netip.MustParsePrefix("fd00::fe/64")))
	must(t, link.AddAddr(w.pod, "eth0", netip.MustParsePrefix("fd00::1/64")))
	w.resolver = v6
	asked := w.upstream()
	w.settled(netip.MustParseAddr("fd00::1"))
	for _, network := range []string{"udp", "tcp"} {
		for name, want := range map[string]string{
			"web.": "NOERROR web. 30 IN AAAA fd00::7", "v6.default.svc.cluster.local.": "NOERROR v6.default.svc.cluster.local. 30 IN AAAA fd00::6",
			"example.com.": `NOERROR example.com. 7 IN TXT "outside"`,
		} {
			if got := text(w.ask(network, name, mdns.TypeAAAA)); got != want {
				t.Errorf("%s %s: %s, want %s", network, name, got, want)
			}
		}
	}
	for _, a := range asked() {
		if a != "fd00::1 udp example.com. AAAA" && a != "fd00::1 tcp example.com. AAAA" {
			t.Errorf("the resolver was asked %q", a)
		}
	}
}

func TestAnswersAreNoLargerThanAskedFor(t *testing.T) { // class 21: no amplification
	w := newWorld(t, nil)
	for _, size := range []uint16{0, 100, 512, 1232, 4096, 65535} {
		q := func(m *mdns.Msg) {
			if size > 0 {
				m.SetEdns0(size, false)
			}
		}
		r := w.ask("udp", "big.", mdns.TypeA, q)
		packed, err := r.Pack()
		must(t, err)
		if most := min(max(int(size), 512), 4096); len(packed) > most {
			t.Errorf("a client that takes %d bytes got %d", size, len(packed))
		}
	}
}
