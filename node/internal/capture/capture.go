// Package capture decides the redirection rules of a pod.
package capture

import (
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
)

// Pod is what of a pod changes its rules.
type Pod struct {
	BypassInbound bool // only outbound connections are captured
	DNS           bool // DNS queries go to the proxy
	// Virtual are interfaces of the pod, by comma, behind which virtual machines are: what comes from there is outbound.
	Virtual string
	V6      bool // the namespace has IPv6
	Probes  Source
}

// Rules are what a captured pod's namespace must hold.
type Rules struct {
	Tables []nft.Table
	Marks  []link.Rule
	Routes []link.Route
}

const (
	routeTable    = 100
	routePriority = 32764
	dnsPort       = 53
	dnsZone       = 1
)

// For gives the rules of a pod. They stay the same for the same pod, so that they can be compared with the kernel's.
func For(p Pod) Rules {
	r := Rules{Tables: []nft.Table{nat(p), mangle(), raw(p)}}
	for _, v6 := range families(p.V6) {
		everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if v6 {
			everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		// Replies to the proxy's transparent sockets go to addresses of others: they must not leave the pod.
		r.Marks = append(r.Marks, link.Rule{V6: v6, Mark: mesh.ConnMark, Mask: mesh.MarkMask, Priority: routePriority, Table: routeTable})
		r.Routes = append(r.Routes, link.Route{To: everywhere, Link: "lo", Table: routeTable, Local: true})
	}
	return r
}

// Relaxed is what takes the place of the redirecting table when nothing new is to be captured.
func Relaxed() nft.Table {
	t := nat(Pod{})
	for i := range t.Chains {
		t.Chains[i].Rules = nil
	}
	return t
}

func families(v6 bool) []bool {
	if v6 {
		return []bool{false, true}
	}
	return []bool{false}
}

// nat redirects connections by their first segment. Without a conntrack entry the kernel takes a later one for the first as
// well, of a connection from before the rules, or whose entry was lost: sent elsewhere, neither end would ever hear of it again.
func nat(p Pod) nft.Table {
	notProxy := nft.NotMark(mesh.Mark, mesh.MarkMask)
	pre := nft.Chain{Name: "prerouting", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDNAT}
	out := nft.Chain{Name: "output", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDNAT}
	each := func(c *nft.Chain, rule func(loopback netip.Prefix, v6 bool) nft.Rule) {
		c.Rules = append(c.Rules, rule(loopbackV4(), false), rule(loopbackV6(), true))
	}
	for name := range strings.SplitSeq(p.Virtual, ",") {
		if name != "" {
			pre.Rules = append(pre.Rules, nft.If(nft.InIface(name), nft.TCP(), nft.SYN()).Then(nft.Redirect(mesh.PortOutbound)).Comment("virtual machine"))
		}
	}
	if !p.BypassInbound {
		each(&pre, func(_ netip.Prefix, v6 bool) nft.Rule {
			return nft.If(p.Probes.matches(v6)...).Then(nft.Accept()).Comment("kubelet probes")
		})
		each(&pre, func(loopback netip.Prefix, _ bool) nft.Rule {
			return nft.If(nft.NotDaddr(loopback), nft.TCP(), nft.SYN(), nft.NotDport(mesh.PortHBONE), notProxy).
				Then(nft.Redirect(mesh.PortPlaintext)).Comment("inbound")
		})
	}
	for _, v6 := range families(true) {
		if a, own := p.Probes.addr(v6); !own { // of a node's address it must not let anything else pass; answers are no first segments
			out.Rules = append(out.Rules, nft.If(nft.Daddr(nft.Host(a))).Then(nft.Accept()).Comment("answers to kubelet probes"))
		}
	}
	if p.DNS {
		out.Rules = append(out.Rules, nft.If(nft.NotOutIface("lo"), nft.UDP(), nft.Dport(dnsPort), notProxy).
			Then(nft.Redirect(mesh.PortDNS)).Comment("DNS"))
		each(&out, func(loopback netip.Prefix, _ bool) nft.Rule {
			return nft.If(nft.NotDaddr(loopback), nft.TCP(), nft.SYN(), nft.Dport(dnsPort), notProxy).
				Then(nft.Redirect(mesh.PortDNS)).Comment("DNS")
		})
	}
	out.Rules = append(out.Rules, nft.If(nft.TCP(), nft.Mark(mesh.ConnMark, mesh.MarkMask)).Then(nft.Accept()).
		Comment("replies of the application to the proxy"))
	each(&out, func(loopback netip.Prefix, _ bool) nft.Rule {
		return nft.If(nft.NotDaddr(loopback), nft.OutIface("lo")).Then(nft.Accept()).Comment("the pod to itself")
	})
	each(&out, func(loopback netip.Prefix, _ bool) nft.Rule {
		return nft.If(nft.NotDaddr(loopback), nft.TCP(), nft.SYN(), notProxy).Then(nft.Redirect(mesh.PortOutbound)).Comment("outbound")
	})
	return nft.Table{Family: nft.INet, Name: "istio-ambient-nat", Chains: []nft.Chain{pre, out}}
}

func mangle() nft.Table {
	return nft.Table{Family: nft.INet, Name: "istio-ambient-mangle", Chains: []nft.Chain{
		{Name: "prerouting", Type: nft.Filter, Hook: nft.Prerouting, Priority: nft.PriorityMangle, Rules: []nft.Rule{
			nft.If(nft.Mark(mesh.Mark, mesh.MarkMask)).Then(nft.SetCTMarkBits(mesh.ConnMark, mesh.MarkMask)),
		}},
		{Name: "output", Type: nft.Reroute, Hook: nft.Output, Priority: nft.PriorityMangle, Rules: []nft.Rule{
			nft.If(nft.CTMark(mesh.ConnMark, mesh.MarkMask)).Then(nft.MarkFromCT()),
		}},
	}}
}

// raw keeps the proxy's own queries apart from the application's: both may use the same ports to the same resolver.
func raw(p Pod) nft.Table {
	t := nft.Table{Family: nft.INet, Name: "istio-ambient-raw", Chains: []nft.Chain{
		{Name: "prerouting", Type: nft.Filter, Hook: nft.Prerouting, Priority: nft.PriorityRaw},
		{Name: "output", Type: nft.Filter, Hook: nft.Output, Priority: nft.PriorityRaw},
	}}
	if p.DNS {
		t.Chains[0].Rules = []nft.Rule{nft.If(nft.UDP(), nft.Sport(dnsPort), nft.NotMark(mesh.Mark, mesh.MarkMask)).Then(nft.SetCTZone(dnsZone))}
		t.Chains[1].Rules = []nft.Rule{nft.If(nft.UDP(), nft.Dport(dnsPort), nft.Mark(mesh.Mark, mesh.MarkMask)).Then(nft.SetCTZone(dnsZone))}
	}
	return t
}

func loopbackV4() netip.Prefix { return nft.Host(netip.AddrFrom4([4]byte{127, 0, 0, 1})) }
func loopbackV6() netip.Prefix { return nft.Host(netip.IPv6Loopback()) }
