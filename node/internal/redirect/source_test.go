package redirect_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
)

// ofNode is a network whose pod lets probes pass that come from the node's own address.
func ofNode(t *testing.T, v6 bool, build func(*testing.T, bool) network) (network, capture.Source, chan arrival) {
	t.Helper()
	n := build(t, v6)
	s := capture.Source{V4: netip.MustParseAddr("10.0.0.254"), V6: netip.MustParseAddr("fd00::fe")}
	rules := capture.For(capture.Pod{V6: v6Here(), Probes: s})
	must(t, redirect.Apply(n.pod, rules))
	if d, err := redirect.Differences(n.pod, rules); err != nil || len(d) > 0 {
		t.Fatalf("Differences after Apply = %v, %v", d, err)
	}
	arrivals := make(chan arrival, 1)
	listen(t, n.pod, arrivals, "application", anyAddr(v6, 80), sock.Options{})
	listen(t, n.pod, arrivals, "15006", anyAddr(v6, mesh.PortPlaintext), sock.Options{Transparent: true})
	return n, s, arrivals
}

// arrives connects and says where it arrived, "" for nowhere.
func arrives(t *testing.T, from *netns.Namespace, local, to netip.AddrPort, arrivals chan arrival, within time.Duration) (at string, seen netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	c, err := sock.Dial(ctx, from, local, to, sock.Options{ReuseAddr: true})
	if err == nil {
		defer c.Close()
		a := <-arrivals
		defer a.conn.Close()
		remote, err := netip.ParseAddrPort(a.conn.RemoteAddr().String())
		must(t, err)
		return a.at, netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	}
	select {
	case a := <-arrivals:
		a.conn.Close()
		return a.at, netip.AddrPort{}
	default:
		return "", netip.AddrPort{}
	}
}

const (
	does    = 10 * time.Second
	doesNot = 500 * time.Millisecond
)

// Probes from the node's own address pass; whoever else has that address at the pod, because it was translated or forged, does not.
func TestBP01ProbesFromTheNodesOwnAddress(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		n, s, arrivals := ofNode(t, v6, routed)
		must(t, nft.Apply(n.node, s.Host([]netip.Addr{n.podIP})))
		if d, err := nft.Compare(n.node, s.Host(nil)); err != nil || len(d) > 0 {
			t.Fatalf("Compare after Apply = %v, %v", d, err)
		}
		to := netip.AddrPortFrom(n.podIP, 80)
		for range 3 {
			if at, seen := arrives(t, n.node, netip.AddrPort{}, to, arrivals, does); at != "application" || seen.Addr() != n.nodeIP || seen.Port() < 512 || seen.Port() > 1023 {
				t.Errorf("a probe arrives at %q from %v", at, seen)
			}
		}
		t.Run("another pod", func(t *testing.T) {
			for _, port := range []uint16{0, 700} {
				if at, _ := arrives(t, n.other, netip.AddrPortFrom(n.otherIP, port), to, arrivals, does); at != "15006" {
					t.Errorf("from port %d arrives at %q", port, at)
				}
			}
		})
		t.Run("a caller that the node gives its own address", func(t *testing.T) {
			masquerade := nft.Table{Family: nft.INet, Name: "kube-proxy", Chains: []nft.Chain{{
				Name: "postrouting", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySNAT,
				Rules: []nft.Rule{nft.If(nft.Saddr(nft.Host(n.otherIP))).Then(nft.Masquerade())},
			}}}
			must(t, nft.Apply(n.node, masquerade))
			low := netip.AddrPortFrom(n.otherIP, 701)
			if at, _ := arrives(t, n.other, low, to, arrivals, doesNot); at != "" {
				t.Errorf("from a low port it arrives at %q", at)
			}
			if at, seen := arrives(t, n.other, netip.AddrPortFrom(n.otherIP, 40000), to, arrivals, does); at != "15006" || seen.Addr() != n.nodeIP {
				t.Errorf("from a high port it arrives at %q as %v", at, seen)
			}
			must(t, nft.Delete(n.node, s.Host(nil)))
			if at, _ := arrives(t, n.other, netip.AddrPortFrom(n.otherIP, 702), to, arrivals, does); at != "application" {
				t.Errorf("this test cannot fail: without the guard it arrives at %q", at)
			}
			must(t, nft.Delete(n.node, masquerade))
			must(t, nft.Apply(n.node, s.Host([]netip.Addr{n.podIP})))
		})
	})
}

// On a bridge somebody may take the node's address for its own.
func TestBP01ForgedNodeAddress(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		n, s, arrivals := ofNode(t, v6, func(t *testing.T, v6 bool) network { return newNetwork(t, v6, capture.Pod{}) })
		bits := 24
		if v6 {
			bits = 64
		}
		must(t, link.DeleteAddr(n.node, "br0", netip.PrefixFrom(n.nodeIP, bits))) // the worst case: nobody else answers for it
		must(t, link.AddAddr(n.other, "eth0", netip.PrefixFrom(n.nodeIP, bits)))
		to := netip.AddrPortFrom(n.podIP, 80)
		if at, _ := arrives(t, n.other, netip.AddrPortFrom(n.nodeIP, 701), to, arrivals, does); at != "application" {
			t.Fatalf("this test cannot fail: without the guard it arrives at %q", at)
		}
		must(t, nft.Apply(n.node, s.Bridges()))
		if at, _ := arrives(t, n.other, netip.AddrPortFrom(n.nodeIP, 702), to, arrivals, doesNot); at != "" {
			t.Errorf("a forged probe arrives at %q", at)
		}
		if at, _ := arrives(t, n.other, netip.AddrPortFrom(n.nodeIP, 40000), to, arrivals, does); at != "15006" {
			t.Errorf("what is no probe arrives at %q", at)
		}
	})
}
