// Package podtest makes pods for kernel tests: namespaces on a bridge, with or without the rules that capture them.
package podtest

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
)

// Bridge is a network 10.0.0.0/24 and fd00::/64 with a router at 10.0.0.254 and fd00::254.
func Bridge(t testing.TB) *netns.Namespace {
	t.Helper()
	netnstest.Need(t)
	ns := netnstest.New(t)
	must(t, link.AddBridge(ns, "br0", netip.MustParsePrefix("10.0.0.254/24"), netip.MustParsePrefix("fd00::254/64")))
	return ns
}

// Pod is a namespace on the bridge with addresses of its network.
func Pod(t testing.TB, bridge *netns.Namespace, name string, ips ...netip.Addr) *netns.Namespace {
	t.Helper()
	ns := netnstest.New(t)
	must(t, link.AddVeth(link.Veth{Name: "v" + name, NS: bridge, Peer: "eth0", PeerNS: ns, Bridge: "br0"}))
	must(t, link.Up(ns, "eth0"))
	must(t, link.Up(bridge, "v"+name))
	for _, ip := range ips {
		bits, to, via := 24, "0.0.0.0/0", "10.0.0.254"
		if ip.Is6() {
			bits, to, via = 64, "::/0", "fd00::254"
		}
		must(t, link.AddAddr(ns, "eth0", netip.PrefixFrom(ip, bits)))
		must(t, link.AddRoute(ns, link.Route{To: netip.MustParsePrefix(to), Via: netip.MustParseAddr(via)}))
	}
	return ns
}

// Capture redirects a pod's connections to its proxy. It is the least that does so; the node agent's rules are the
// same in substance.
func Capture(t testing.TB, ns *netns.Namespace) {
	t.Helper()
	other := nft.NotMark(mesh.Mark, mesh.MarkMask)
	each := func(f func(notLoopback nft.Match) nft.Rule) []nft.Rule {
		return []nft.Rule{f(nft.NotDaddr(netip.MustParsePrefix("127.0.0.1/32"))), f(nft.NotDaddr(netip.MustParsePrefix("::1/128")))}
	}
	must(t, nft.Apply(ns,
		nft.Table{Family: nft.INet, Name: "nat", Chains: []nft.Chain{
			{Name: "pre", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDNAT, Rules: each(func(afar nft.Match) nft.Rule {
				return nft.If(afar, nft.TCP(), nft.NotDport(mesh.PortHBONE), other).Then(nft.Redirect(mesh.PortPlaintext))
			})},
			{Name: "out", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDNAT, Rules: slices.Concat(
				[]nft.Rule{nft.If(nft.TCP(), nft.Mark(mesh.ConnMark, mesh.MarkMask)).Then(nft.Accept())},
				each(func(afar nft.Match) nft.Rule { return nft.If(afar, nft.OutIface("lo")).Then(nft.Accept()) }),
				each(func(afar nft.Match) nft.Rule {
					return nft.If(afar, nft.TCP(), other).Then(nft.Redirect(mesh.PortOutbound))
				}),
			)},
		}},
		nft.Table{Family: nft.INet, Name: "mangle", Chains: []nft.Chain{
			{Name: "pre", Type: nft.Filter, Hook: nft.Prerouting, Priority: nft.PriorityMangle, Rules: []nft.Rule{
				nft.If(nft.Mark(mesh.Mark, mesh.MarkMask)).Then(nft.SetCTMarkBits(mesh.ConnMark, mesh.MarkMask)),
			}},
			{Name: "out", Type: nft.Reroute, Hook: nft.Output, Priority: nft.PriorityMangle, Rules: []nft.Rule{
				nft.If(nft.CTMark(mesh.ConnMark, mesh.MarkMask)).Then(nft.MarkFromCT()),
			}},
		}}))
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		to := netip.MustParsePrefix(all)
		must(t, link.AddRule(ns, link.Rule{V6: to.Addr().Is6(), Mark: mesh.ConnMark, Mask: mesh.MarkMask, Priority: 32764, Table: 100}))
		must(t, link.AddRoute(ns, link.Route{To: to, Link: "lo", Table: 100, Local: true}))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
