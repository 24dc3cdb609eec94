package capture

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/linux/nft"
)

// Names of the node's sets of captured pods.
const (
	ProbesV4 = "istio-inpod-probes-v4"
	ProbesV6 = "istio-inpod-probes-v6"
)

// kubelet is the user whose connections are probes.
const kubelet = 0

// Host gives the node's own table: what sockets of kubelet's user on the node itself send to the captured pods seems to come
// from an address that the pods' rules let pass. Forwarded packets have no socket here and never match; those that come in with
// that address are somebody's who has no right to it.
func (s Source) Host(pods []netip.Addr) nft.Table {
	v4 := nft.Set{Name: ProbesV4, Kind: nft.AddrsV4, Live: true}
	v6 := nft.Set{Name: ProbesV6, Kind: nft.AddrsV6, Live: true}
	for _, a := range pods {
		if a.Is4() {
			v4.Elements = append(v4.Elements, nft.Host(a))
		} else {
			v6.Elements = append(v6.Elements, nft.Host(a))
		}
	}
	t := nft.Table{Family: nft.INet, Name: "istio-ambient-host", Sets: []nft.Set{v4, v6}, Chains: []nft.Chain{
		{
			Name: "postrouting", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySNAT - 1, // before others' masquerading
			Rules: []nft.Rule{
				nft.If(nft.SocketUser(kubelet), nft.TCP(), nft.DaddrIn(v4)).Then(s.give(false)),
				nft.If(nft.SocketUser(kubelet), nft.TCP(), nft.DaddrIn(v6)).Then(s.give(true)),
			},
		},
		s.forged(),
	}}
	if translated := s.translated(v4, v6); len(translated.Rules) > 0 {
		t.Chains = append(t.Chains, translated)
	}
	return t
}

// translated drops what somebody else's masquerading made look like a probe, and what another user of the node sends from such a port.
func (s Source) translated(v4, v6 nft.Set) nft.Chain {
	c := nft.Chain{Name: "translated", Type: nft.Filter, Hook: nft.Postrouting, Priority: nft.PrioritySNAT + 1}
	for _, pods := range []nft.Set{v4, v6} {
		is6 := pods.Name == ProbesV6
		if _, own := s.addr(is6); own {
			c.Rules = append(c.Rules,
				nft.If(nft.SocketUser(kubelet), nft.TCP(), nft.DaddrIn(pods)).Then(nft.Accept()),
				nft.If(append(s.matches(is6), nft.SYN(), nft.DaddrIn(pods))...).Then(nft.Drop()).Comment("forged probes"))
		}
	}
	return c
}

// Bridges gives the same guard for pods that are ports of a bridge of the node: their frames to each other do not pass Host's.
func (s Source) Bridges() nft.Table {
	return nft.Table{Family: nft.Bridge, Name: "istio-ambient-host", Chains: []nft.Chain{s.forged()}}
}

// forged drops what says that it is a probe and was not sent from here.
func (s Source) forged() nft.Chain {
	c := nft.Chain{Name: "prerouting", Type: nft.Filter, Hook: nft.Prerouting, Priority: nft.PriorityRaw}
	for _, v6 := range families(true) {
		a, own := s.addr(v6)
		m := []nft.Match{nft.Saddr(nft.Host(a))}
		if own {
			m = append(s.matches(v6), nft.NotInIface("lo")) // the node's own words to itself come in by that
		}
		c.Rules = append(c.Rules, nft.If(m...).Then(nft.Drop()).Comment("forged probes"))
	}
	return c
}
