package redirect_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
)

// routed joins two pods to a node by a pair of interfaces each, as many network plugins do.
func routed(t *testing.T, v6 bool) network {
	t.Helper()
	n := newNetwork(t, v6, capture.Pod{})
	for key, ns := range map[string]*netns.Namespace{"p": n.pod, "o": n.other} {
		ip, far := n.podIP, n.otherIP
		if ns == n.other {
			ip, far = far, ip
		}
		must(t, link.Delete(ns, "eth0"))
		must(t, link.AddVeth(link.Veth{Name: "r" + key, NS: n.node, Peer: "eth0", PeerNS: ns}))
		must(t, link.Up(n.node, "r"+key))
		must(t, link.Up(ns, "eth0"))
		must(t, link.AddAddr(ns, "eth0", netip.PrefixFrom(ip, ip.BitLen())))
		node := netip.PrefixFrom(n.nodeIP, n.nodeIP.BitLen())
		must(t, link.AddAddr(n.node, "r"+key, node)) // so that it answers for its address there
		must(t, link.AddRoute(n.node, link.Route{To: netip.PrefixFrom(ip, ip.BitLen()), Link: "r" + key}))
		must(t, link.AddRoute(ns, link.Route{To: node, Link: "eth0"}))
		must(t, link.AddRoute(ns, link.Route{To: netip.PrefixFrom(far, far.BitLen()), Via: n.nodeIP, Link: "eth0"}))
	}
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		must(t, link.SetSysctl(n.node, key, "1"))
	}
	return n
}

// The exemption of probes is of use to nobody but the node: not to another pod with the right to take any address.
func TestForgedProbes(t *testing.T) {
	for name, c := range map[string]struct {
		build func(*testing.T, bool) network
		table nft.Table
	}{
		"pods on one bridge": {func(t *testing.T, v6 bool) network { return newNetwork(t, v6, capture.Pod{}) }, capture.Source{}.Bridges()},
		"pods routed":        {routed, capture.Source{}.Host(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			families(t, func(t *testing.T, v6 bool) {
				n := c.build(t, v6)
				arrivals := make(chan arrival, 1)
				listen(t, n.pod, arrivals, "application", anyAddr(v6, 80), sock.Options{})
				listen(t, n.pod, arrivals, "15006", anyAddr(v6, mesh.PortPlaintext), sock.Options{Transparent: true})
				// The worst case: the way back leads to the forger.
				probe := netip.PrefixFrom(n.probe, n.probe.BitLen())
				must(t, link.AddAddr(n.other, "eth0", probe))
				for _, ns := range []*netns.Namespace{n.node, n.pod} {
					must(t, link.AddRoute(ns, link.Route{To: probe, Via: map[*netns.Namespace]netip.Addr{n.node: n.otherIP, n.pod: back(name, n)}[ns]}))
				}
				forge := func(within time.Duration) error {
					ctx, cancel := context.WithTimeout(t.Context(), within)
					defer cancel()
					conn, err := sock.Dial(ctx, n.other, netip.AddrPortFrom(n.probe, 0), netip.AddrPortFrom(n.podIP, 80), sock.Options{})
					if err == nil {
						conn.Close()
					}
					return err
				}
				if err := forge(5 * time.Second); err != nil {
					t.Fatalf("this test cannot fail: without the guard %v", err)
				}
				if a := <-arrivals; a.at != "application" {
					t.Fatalf("this test cannot fail: without the guard at %s", a.at)
				}
				must(t, nft.Apply(n.node, c.table))
				if err := forge(300 * time.Millisecond); err == nil {
					t.Error("a forged probe gets an answer")
				}
				select {
				case a := <-arrivals:
					t.Errorf("a forged probe arrives at %s", a.at)
				default:
				}
				// Everything else goes on.
				conn, err := sock.Dial(t.Context(), n.other, netip.AddrPortFrom(n.otherIP, 0), netip.AddrPortFrom(n.podIP, 80), sock.Options{})
				must(t, err)
				defer conn.Close()
				if a := <-arrivals; a.at != "15006" {
					t.Errorf("arrived at %s", a.at)
				}
			})
		})
	}
}

// back is the pod's next hop to the forger.
func back(name string, n network) netip.Addr {
	if name == "pods on one bridge" {
		return n.otherIP
	}
	return n.nodeIP
}

// BP-05: the proxy's mark takes a right that an application need not have; what it buys is in the table of
// TestWhereConnectionsOfACapturedPodGo: the pod's own outbound connections, and nothing at others.
func TestBP05MarkNeedsARight(t *testing.T) {
	ns := netnstest.New(t)
	got := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends without its rights
		got <- netns.Do(ns, func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err := unix.Capset(&header, &none[0]); err != nil {
				return err
			}
			_, err := sock.Listen(nil, netip.MustParseAddrPort("127.0.0.1:0"), sock.Options{Mark: mesh.Mark})
			return err
		})
	}()
	if err := <-got; !errors.Is(err, unix.EPERM) {
		t.Errorf("BP-05: SO_MARK without NET_ADMIN and NET_RAW = %v, want %v", err, unix.EPERM)
	}
}

// A virtual machine in a pod is captured like the pod.
func TestVirtualMachine(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		n := newNetwork(t, v6, capture.Pod{Virtual: "k6t-eth0"})
		vm := netnstest.New(t)
		inside, gate, bits := netip.MustParseAddr("10.8.0.2"), netip.MustParseAddr("10.8.0.1"), 24
		if v6 {
			inside, gate, bits = netip.MustParseAddr("fd08::2"), netip.MustParseAddr("fd08::1"), 64
		}
		must(t, link.AddVeth(link.Veth{Name: "k6t-eth0", NS: n.pod, Peer: "eth0", PeerNS: vm}))
		must(t, link.AddAddr(n.pod, "k6t-eth0", netip.PrefixFrom(gate, bits)))
		must(t, link.AddAddr(vm, "eth0", netip.PrefixFrom(inside, bits)))
		must(t, link.Up(n.pod, "k6t-eth0"))
		must(t, link.Up(vm, "eth0"))
		must(t, link.AddRoute(vm, link.Route{To: netip.PrefixFrom(n.otherIP, n.otherIP.BitLen()), Via: gate}))
		arrivals := make(chan arrival, 1)
		listen(t, n.pod, arrivals, "15001", anyAddr(v6, mesh.PortOutbound), sock.Options{Transparent: true})
		listen(t, n.pod, arrivals, "15006", anyAddr(v6, mesh.PortPlaintext), sock.Options{Transparent: true})
		to := netip.AddrPortFrom(n.otherIP, 80)
		c, err := sock.Dial(t.Context(), vm, netip.AddrPort{}, to, sock.Options{})
		must(t, err)
		defer c.Close()
		a := <-arrivals
		defer a.conn.Close()
		if a.at != "15001" || a.original != to {
			t.Errorf("arrived at %s, destination %v; want 15001, %v", a.at, a.original, to)
		}
	})
}

// BP-09: a pod without IPv6 is captured, and once it has IPv6 what is missing is found.
func TestPodWithoutIPv6(t *testing.T) {
	netnstest.Need(t)
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("this kernel does not know IPv6")
	}
	ns := netnstest.New(t)
	set := func(value string) {
		for _, name := range []string{"all", "default", "lo"} {
			must(t, link.SetSysctl(ns, "ipv6/conf/"+name+"/disable_ipv6", value))
		}
	}
	set("1")
	v6, err := redirect.V6(ns)
	if err != nil || v6 {
		t.Fatalf("V6 = %v, %v", v6, err)
	}
	must(t, redirect.Apply(ns, capture.For(capture.Pod{})))
	set("0")
	if v6, err = redirect.V6(ns); err != nil || !v6 {
		t.Fatalf("V6 = %v, %v", v6, err)
	}
	rules := capture.For(capture.Pod{V6: true})
	if d, err := redirect.Differences(ns, rules); err != nil || len(d) != 2 {
		t.Errorf("BP-09: Differences = %v, %v; want rule and route of IPv6", d, err)
	}
	must(t, redirect.Apply(ns, rules))
	must(t, redirect.Remove(ns))
}
