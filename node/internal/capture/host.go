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
func Host(pods []netip.Addr) nft.Table {
	v4 := nft.Set{Name: ProbesV4, Kind: nft.AddrsV4, Live: true}
	v6 := nft.Set{Name: ProbesV6, Kind: nft.AddrsV6, Live: true}
	for _, a := range pods {
		if a.Is4() {
			v4.Elements = append(v4.Elements, nft.Host(a))
		} else {
			v6.Elements = append(v6.Elements, nft.Host(a))
		}
	}
	return nft.Table{Family: nft.INet, Name: "istio-ambient-host", Sets: []nft.Set{v4, v6}, Chains: []nft.Chain{
		{
			Name: "postrouting", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySNAT - 1, // before others' masquerading
			Rules: []nft.Rule{
				nft.If(nft.SocketUser(kubelet), nft.TCP(), nft.DaddrIn(v4)).Then(nft.SNAT(probeV4().Addr())),
				nft.If(nft.SocketUser(kubelet), nft.TCP(), nft.DaddrIn(v6)).Then(nft.SNAT(probeV6().Addr())),
			},
		},
		forged(),
	}}
}

// Bridges gives the same guard for pods that are ports of a bridge of the node: their frames to each other do not pass Host's.
func Bridges() nft.Table {
	return nft.Table{Family: nft.Bridge, Name: "istio-ambient-host", Chains: []nft.Chain{forged()}}
}

// forged drops what says that it is a probe and was not sent from here.
func forged() nft.Chain {
	return nft.Chain{Name: "prerouting", Type: nft.Filter, Hook: nft.Prerouting, Priority: nft.PriorityRaw, Rules: []nft.Rule{
		nft.If(nft.Saddr(probeV4())).Then(nft.Drop()).Comment("forged probes"),
		nft.If(nft.Saddr(probeV6())).Then(nft.Drop()).Comment("forged probes"),
	}}
}
