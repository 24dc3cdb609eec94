// Package podtest makes pods for kernel tests: namespaces on a bridge, with or without the rules that capture them.
package podtest

import (
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
)

// Bridge is a network 10.0.0.0/24 with a router at 10.0.0.254.
func Bridge(t testing.TB) *netns.Namespace {
	t.Helper()
	netnstest.Need(t)
	ns := netnstest.New(t)
	must(t, link.AddBridge(ns, "br0", netip.MustParsePrefix("10.0.0.254/24")))
	return ns
}

// Pod is a namespace on the bridge with one address of its network.
func Pod(t testing.TB, bridge *netns.Namespace, name string, ip netip.Addr) *netns.Namespace {
	t.Helper()
	ns := netnstest.New(t)
	must(t, link.AddVeth(link.Veth{Name: "v" + name, NS: bridge, Peer: "eth0", PeerNS: ns, Bridge: "br0"}))
	must(t, link.AddAddr(ns, "eth0", netip.PrefixFrom(ip, 24)))
	must(t, link.Up(ns, "eth0"))
	must(t, link.Up(bridge, "v"+name))
	must(t, link.AddRoute(ns, link.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.0.0.254")}))
	return ns
}

// Capture redirects a pod's connections to its proxy. It is the least that does so; the node agent's rules are the
// same in substance.
func Capture(t testing.TB, ns *netns.Namespace) {
	t.Helper()
	lo := netip.MustParsePrefix("127.0.0.1/32")
	other := nft.NotMark(mesh.Mark, mesh.MarkMask)
	must(t, nft.Apply(ns,
		nft.Table{Family: nft.INet, Name: "nat", Chains: []nft.Chain{
			{Name: "pre", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDNAT, Rules: []nft.Rule{
				nft.If(nft.NotDaddr(lo), nft.TCP(), nft.NotDport(mesh.PortHBONE), other).Then(nft.Redirect(mesh.PortPlaintext)),
			}},
			{Name: "out", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDNAT, Rules: []nft.Rule{
				nft.If(nft.TCP(), nft.Mark(mesh.ConnMark, mesh.MarkMask)).Then(nft.Accept()),
				nft.If(nft.NotDaddr(lo), nft.OutIface("lo")).Then(nft.Accept()),
				nft.If(nft.NotDaddr(lo), nft.TCP(), other).Then(nft.Redirect(mesh.PortOutbound)),
			}},
		}},
		nft.Table{Family: nft.INet, Name: "mangle", Chains: []nft.Chain{
			{Name: "pre", Type: nft.Filter, Hook: nft.Prerouting, Priority: nft.PriorityMangle, Rules: []nft.Rule{
				nft.If(nft.Mark(mesh.Mark, mesh.MarkMask)).Then(nft.SetCTMarkBits(mesh.ConnMark, mesh.MarkMask)),
			}},
			{Name: "out", Type: nft.Reroute, Hook: nft.Output, Priority: nft.PriorityMangle, Rules: []nft.Rule{
				nft.If(nft.CTMark(mesh.ConnMark, mesh.MarkMask)).Then(nft.MarkFromCT()),
			}},
		}}))
	must(t, link.AddRule(ns, link.Rule{Mark: mesh.ConnMark, Mask: mesh.MarkMask, Priority: 32764, Table: 100}))
	must(t, link.AddRoute(ns, link.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Link: "lo", Table: 100, Local: true}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
