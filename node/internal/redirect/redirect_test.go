package redirect_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/internal/testkit/podtest"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// network is a captured pod, another pod that is not, and the node between them.
type network struct {
	node, pod, other                  *netns.Namespace
	nodeIP, podIP, otherIP, lo, probe netip.Addr
}

func families(t *testing.T, f func(t *testing.T, v6 bool)) {
	t.Run("IPv4", func(t *testing.T) { f(t, false) })
	t.Run("IPv6", func(t *testing.T) {
		if !v6Here() {
			t.Skip("this kernel does not know IPv6")
		}
		f(t, true)
	})
}

// v6Here reports whether this kernel has IPv6.
func v6Here() bool {
	has, err := redirect.V6(nil)
	return err == nil && has
}

func newNetwork(t *testing.T, v6 bool, p capture.Pod) network {
	t.Helper()
	n := network{node: podtest.Bridge(t)}
	addr := netip.MustParseAddr
	n.nodeIP, n.podIP, n.otherIP, n.lo, n.probe = addr("10.0.0.254"), addr("10.0.0.1"), addr("10.0.0.2"), addr("127.0.0.1"), addr(mesh.ProbeSourceV4)
	n.pod, n.other = podtest.Pod(t, n.node, "pod", n.podIP), podtest.Pod(t, n.node, "other", n.otherIP)
	if v6 {
		n.nodeIP, n.podIP, n.otherIP, n.lo, n.probe = addr("fd00::fe"), addr("fd00::1"), addr("fd00::2"), addr("::1"), addr(mesh.ProbeSourceV6)
		must(t, link.AddAddr(n.node, "br0", netip.PrefixFrom(n.nodeIP, 64)))
		must(t, link.AddAddr(n.pod, "eth0", netip.PrefixFrom(n.podIP, 64)))
		must(t, link.AddAddr(n.other, "eth0", netip.PrefixFrom(n.otherIP, 64)))
		must(t, link.AddRoute(n.pod, link.Route{To: netip.MustParsePrefix("::/0"), Via: n.nodeIP}))
	}
	p.V6 = v6Here()
	rules := capture.For(p)
	must(t, redirect.Apply(n.pod, rules))
	if d, err := redirect.Differences(n.pod, rules); err != nil || len(d) > 0 {
		t.Fatalf("Differences after Apply = %v, %v", d, err)
	}
	return n
}

// arrival says of a connection where it came in, from whom and where it was going.
type arrival struct {
	at       string
	from     netip.Addr
	original netip.AddrPort
	conn     *net.TCPConn
}

func listen(t *testing.T, ns *netns.Namespace, arrivals chan<- arrival, name string, at netip.AddrPort, o sock.Options) {
	t.Helper()
	l, err := sock.Listen(ns, at, o)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			original, _ := sock.OriginalDst(c) // none for a connection that was not redirected
			arrivals <- arrival{name, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), original, c}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

func anyAddr(v6 bool, port uint16) netip.AddrPort {
	if v6 {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
}

func TestWhereConnectionsOfACapturedPodGo(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		n := newNetwork(t, v6, capture.Pod{DNS: true})
		must(t, link.AddAddr(n.node, "br0", netip.PrefixFrom(n.probe, n.probe.BitLen())))
		arrivals := make(chan arrival, 1)
		for port, name := range map[uint16]string{
			mesh.PortOutbound: "15001", mesh.PortPlaintext: "15006", mesh.PortHBONE: "15008", mesh.PortDNS: "15053", 80: "application",
		} {
			listen(t, n.pod, arrivals, name, anyAddr(v6, port), sock.Options{Transparent: port != 80})
		}
		listen(t, n.other, arrivals, "other", anyAddr(v6, 80), sock.Options{})
		listen(t, n.other, arrivals, "other's DNS", anyAddr(v6, 53), sock.Options{})
		proxy := sock.Options{Mark: mesh.Mark}
		to := netip.AddrPortFrom
		for _, c := range []struct {
			name     string
			ns       *netns.Namespace
			from     netip.Addr
			to       netip.AddrPort
			options  sock.Options
			at       string
			original bool // the destination is still known
			seen     netip.Addr
		}{
			{name: "outbound goes to the proxy", ns: n.pod, to: to(n.otherIP, 80), at: "15001", original: true, seen: n.podIP},
			{name: "outbound to another's HBONE port as well", ns: n.pod, to: to(n.otherIP, mesh.PortHBONE), at: "15001", original: true, seen: n.podIP},
			{name: "the proxy's own passes", ns: n.pod, to: to(n.otherIP, 80), options: proxy, at: "other", seen: n.podIP},
			{name: "DNS over TCP goes to the proxy", ns: n.pod, to: to(n.otherIP, 53), at: "15053", original: true, seen: n.podIP},
			{name: "the proxy's own DNS passes", ns: n.pod, to: to(n.otherIP, 53), options: proxy, at: "other's DNS", seen: n.podIP},
			{name: "inbound goes to the proxy", ns: n.other, to: to(n.podIP, 80), at: "15006", original: true, seen: n.otherIP},
			{name: "a mark outside the pod buys nothing", ns: n.other, to: to(n.podIP, 80), options: proxy, at: "15006", original: true, seen: n.otherIP},
			{name: "inbound on the outbound port too", ns: n.other, to: to(n.podIP, mesh.PortOutbound), at: "15006", original: true, seen: n.otherIP},
			{name: "BP-16: and on the DNS port", ns: n.other, to: to(n.podIP, mesh.PortDNS), at: "15006", original: true, seen: n.otherIP},
			{name: "HBONE is left alone", ns: n.other, to: to(n.podIP, mesh.PortHBONE), at: "15008", seen: n.otherIP},
			{name: "localhost is left alone", ns: n.pod, to: to(n.lo, 80), at: "application", seen: n.lo},
			{name: "so is the pod to itself", ns: n.pod, to: to(n.podIP, 80), at: "application", seen: n.podIP},
			{name: "a probe bypasses", ns: n.node, from: n.probe, to: to(n.podIP, 80), at: "application", seen: n.probe},
			{name: "the node without the probes' address does not", ns: n.node, from: n.nodeIP, to: to(n.podIP, 80), at: "15006", original: true, seen: n.nodeIP},
			{
				name: "the proxy delivers with the peer's address", ns: n.pod, from: n.otherIP, to: to(n.podIP, 80),
				options: sock.Options{Mark: mesh.Mark, Transparent: true}, at: "application", seen: n.otherIP,
			},
		} {
			t.Run(c.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				from := netip.AddrPort{}
				if c.from.IsValid() {
					from = to(c.from, 0)
				}
				conn, err := sock.Dial(ctx, c.ns, from, c.to, c.options)
				must(t, err)
				defer conn.Close()
				a := <-arrivals
				defer a.conn.Close()
				if a.at != c.at || a.from != c.seen || c.original && a.original != c.to {
					t.Errorf("arrived at %s from %v, destination %v; want %s from %v, %v", a.at, a.from, a.original, c.at, c.seen, c.to)
				}
				_, err = a.conn.Write([]byte("reply"))
				must(t, err)
				must(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
				b := make([]byte, 5)
				if k, err := conn.Read(b); string(b[:k]) != "reply" {
					t.Errorf("read %q, %v", b[:k], err)
				}
			})
		}
	})
}

func TestBypassLetsInboundPass(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		n := newNetwork(t, v6, capture.Pod{BypassInbound: true})
		arrivals := make(chan arrival, 1)
		listen(t, n.pod, arrivals, "application", anyAddr(v6, 80), sock.Options{})
		listen(t, n.pod, arrivals, "15001", anyAddr(v6, mesh.PortOutbound), sock.Options{Transparent: true})
		for ns, want := range map[*netns.Namespace]string{n.other: "application", n.pod: "15001"} {
			to := n.podIP
			if ns == n.pod {
				to = n.otherIP
			}
			c, err := sock.Dial(t.Context(), ns, netip.AddrPort{}, netip.AddrPortFrom(to, 80), sock.Options{})
			must(t, err)
			a := <-arrivals
			if a.at != want {
				t.Errorf("to %v arrived at %s, want %s", to, a.at, want)
			}
			a.conn.Close()
			c.Close()
		}
	})
}

func TestDNS(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		for name, c := range map[string]struct {
			captured bool
			options  sock.Options
			want     string
		}{
			"captured query goes to the proxy": {captured: true, want: "proxy"},
			"the proxy's own passes":           {captured: true, options: sock.Options{Mark: mesh.Mark}, want: "resolver"},
			"query without capture passes":     {want: "resolver"},
		} {
			t.Run(name, func(t *testing.T) {
				n := newNetwork(t, v6, capture.Pod{DNS: c.captured})
				answerUDP(t, n.node, anyAddr(v6, 53), "resolver")
				answerUDP(t, n.pod, netip.AddrPortFrom(n.lo, mesh.PortDNS), "proxy") // the kernel redirects to loopback
				if got := ask(t, n, c.options, 0); got != c.want {
					t.Errorf("answered by %q, want %q", got, c.want)
				}
			})
		}
		t.Run("application and proxy may use one port at one time", func(t *testing.T) {
			n := newNetwork(t, v6, capture.Pod{DNS: true})
			answerUDP(t, n.node, anyAddr(v6, 53), "resolver")
			answerUDP(t, n.pod, netip.AddrPortFrom(n.lo, mesh.PortDNS), "proxy")
			for range 3 {
				if got := ask(t, n, sock.Options{}, 4444); got != "proxy" {
					t.Errorf("application's query answered by %q", got)
				}
				if got := ask(t, n, sock.Options{Mark: mesh.Mark}, 4444); got != "resolver" {
					t.Errorf("proxy's query answered by %q", got)
				}
			}
		})
	})
}

func answerUDP(t *testing.T, ns *netns.Namespace, at netip.AddrPort, text string) {
	t.Helper()
	c, err := sock.ListenUDP(ns, at, sock.Options{})
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 100)
		for {
			_, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteToUDPAddrPort([]byte(text), from) // the asker notices a loss
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
}

// ask sends a query from the pod to the node's resolver; only an answer from there counts. As of any datagram it may be lost, while
// the neighbour is looked for on a link that has only just come up, so it is sent again as every resolver's client does.
func ask(t *testing.T, n network, o sock.Options, port uint16) string {
	t.Helper()
	c, err := sock.ListenUDP(n.pod, netip.AddrPortFrom(n.podIP, port), o)
	must(t, err)
	defer c.Close()
	resolver, b := netip.AddrPortFrom(n.nodeIP, 53), make([]byte, 100)
	for range 40 {
		_, err = c.WriteToUDPAddrPort([]byte("query"), resolver)
		must(t, err)
		must(t, c.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
		k, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil || from.Addr().Unmap() != resolver.Addr() || from.Port() != 53 {
			t.Fatalf("answer %q from %v, %v", b[:k], from, err)
		}
		return string(b[:k])
	}
	t.Fatal("no answer")
	return ""
}

func TestRelaxedPodCapturesNothingNewAndKeepsWhatItHas(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		n := newNetwork(t, v6, capture.Pod{})
		arrivals := make(chan arrival, 1)
		listen(t, n.pod, arrivals, "application", anyAddr(v6, 80), sock.Options{})
		listen(t, n.pod, arrivals, "15006", anyAddr(v6, mesh.PortPlaintext), sock.Options{Transparent: true})
		dial := func(ns *netns.Namespace, from netip.AddrPort, o sock.Options, at string) (near, far *net.TCPConn) {
			t.Helper()
			c, err := sock.Dial(t.Context(), ns, from, netip.AddrPortFrom(n.podIP, 80), o)
			must(t, err)
			a := <-arrivals
			if a.at != at {
				t.Errorf("arrived at %s, want %s", a.at, at)
			}
			t.Cleanup(func() { c.Close(); a.conn.Close() })
			return c, a.conn
		}
		client, proxy := dial(n.other, netip.AddrPort{}, sock.Options{}, "15006")
		delivery, application := dial(n.pod, netip.AddrPortFrom(n.otherIP, 0), sock.Options{Mark: mesh.Mark, Transparent: true}, "application")
		must(t, redirect.Relax(n.pod))
		dial(n.other, netip.AddrPort{}, sock.Options{}, "application")
		for _, pair := range [][2]*net.TCPConn{{client, proxy}, {proxy, client}, {delivery, application}, {application, delivery}} {
			_, err := pair[0].Write([]byte("x"))
			must(t, err)
			must(t, pair[1].SetReadDeadline(time.Now().Add(5*time.Second)))
			if _, err := pair[1].Read(make([]byte, 1)); err != nil {
				t.Errorf("a connection from before does not go on: %v", err)
			}
		}
	})
}

// CN-15.
func TestDifferencesFindTamperingAndApplyRepairsIt(t *testing.T) {
	n := newNetwork(t, false, capture.Pod{})
	rules := capture.For(capture.Pod{V6: v6Here()})
	other := nft.Table{Family: nft.INet, Name: "of-another", Chains: []nft.Chain{{Name: "c"}}}
	must(t, nft.Apply(n.pod, other))
	loose := capture.For(capture.Pod{BypassInbound: true, V6: v6Here()})
	for name, tamper := range map[string]func() error{
		"table flushed":   func() error { return nft.Delete(n.pod, rules.Tables[0]) },
		"rules weaker":    func() error { return nft.Apply(n.pod, loose.Tables[0]) },
		"mark rule gone":  func() error { return link.DeleteRule(n.pod, rules.Marks[0]) },
		"route gone":      func() error { return link.DeleteRoute(n.pod, rules.Routes[0]) },
		"everything gone": func() error { return redirect.Remove(n.pod) },
	} {
		t.Run(name, func(t *testing.T) {
			must(t, tamper())
			if d, err := redirect.Differences(n.pod, rules); err != nil || len(d) == 0 {
				t.Fatalf("Differences = %v, %v, want some", d, err)
			}
			must(t, redirect.Apply(n.pod, rules))
			if d, err := redirect.Differences(n.pod, rules); err != nil || len(d) > 0 {
				t.Fatalf("after repair: %v, %v", d, err)
			}
		})
	}
	if ours, err := redirect.Captured(n.pod); err != nil || !ours {
		t.Errorf("Captured = %v, %v", ours, err)
	}
	for range 2 { // what is gone can be removed
		must(t, redirect.Remove(n.pod))
		if ours, err := redirect.Captured(n.pod); err != nil || ours {
			t.Errorf("Captured after Remove = %v, %v", ours, err)
		}
	}
	names, err := nft.Names(n.pod)
	must(t, err)
	if strings.Join(names, " ") != "inet of-another" {
		t.Errorf("left: %v", names)
	}
	for _, m := range rules.Marks {
		if there, err := link.HasRule(n.pod, m); err != nil || there {
			t.Errorf("%s is left, %v", m, err)
		}
	}
	for _, o := range rules.Routes {
		if there, err := link.HasRoute(n.pod, o); err != nil || there {
			t.Errorf("%s is left, %v", o, err)
		}
	}
}

func TestNodesOwnConnectionsComeFromTheProbesAddress(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		n := newNetwork(t, v6, capture.Pod{})
		must(t, nft.Apply(n.node, capture.Source{}.Host([]netip.Addr{n.podIP})))
		arrivals := make(chan arrival, 1)
		listen(t, n.pod, arrivals, "application", anyAddr(v6, 80), sock.Options{})
		listen(t, n.other, arrivals, "other", anyAddr(v6, 80), sock.Options{})
		for to, want := range map[netip.Addr]netip.Addr{n.podIP: n.probe, n.otherIP: n.nodeIP} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			c, err := sock.Dial(ctx, n.node, netip.AddrPort{}, netip.AddrPortFrom(to, 80), sock.Options{})
			cancel()
			must(t, err)
			a := <-arrivals
			if a.from != want {
				t.Errorf("%v sees the node as %v, want %v", to, a.from, want)
			}
			a.conn.Close()
			c.Close()
		}
	})
}

func TestProbesKeepWhatAnEarlierAgentExempted(t *testing.T) {
	netnstest.Need(t)
	listed := func() string {
		var words []string
		for _, set := range []string{capture.ProbesV4, capture.ProbesV6} {
			all, err := nft.Addrs(nil, capture.Source{}.Host(nil), set)
			must(t, err)
			for _, a := range all {
				words = append(words, a.String())
			}
		}
		return strings.Join(words, " ")
	}
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::2")
	var earlier redirect.Probes
	if changed, err := earlier.Ensure(); err != nil || !changed {
		t.Fatalf("Ensure = %v, %v", changed, err)
	}
	must(t, earlier.Add(one, two))
	must(t, earlier.Add(one))
	var p redirect.Probes
	if changed, err := p.Ensure(); err != nil || changed || listed() != "10.0.0.1 fd00::2" {
		t.Errorf("Ensure = %v, %v; exempt are %q", changed, err, listed())
	}
	must(t, p.Add(one))
	must(t, p.Prune())
	if listed() != "10.0.0.1" {
		t.Errorf("after Prune exempt are %q", listed())
	}
	must(t, nft.Apply(nil, nft.Table{Family: nft.INet, Name: "istio-ambient-host"})) // somebody flushed it
	if changed, err := p.Ensure(); err != nil || !changed || listed() != "10.0.0.1" {
		t.Errorf("after a flush: Ensure = %v, %v; exempt are %q", changed, err, listed())
	}
	must(t, p.Delete(one))
	must(t, p.Delete(one))
	must(t, p.Remove())
	must(t, p.Remove())
	if names, err := nft.Names(nil); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// BP-09: the agent reads this as "not captured".
func TestRulesThatCannotBePutInAreNoSuccess(t *testing.T) {
	ns, err := netnstest.New(t).Dup()
	must(t, err)
	must(t, ns.Close())
	if err := redirect.Apply(ns, capture.For(capture.Pod{})); err == nil {
		t.Error("BP-09: Apply in a namespace that cannot be entered = nil")
	}
}
