package capture

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
)

// Names of the node's sets of captured pods.
const (
	ProbesV4 = "istio-inpod-probes-v4"
	ProbesV6 = "istio-inpod-probes-v6"
)

// Host gives the node's own table: what sockets of the node itself send to the captured pods, kubelet's probes first of all,
// seems to come from an address that the pods' rules let pass. Forwarded packets have no socket here and never match.
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
	return nft.Table{Family: nft.INet, Name: "istio-ambient-host", Sets: []nft.Set{v4, v6}, Chains: []nft.Chain{{
		Name: "postrouting", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySNAT - 1, // before others' masquerading
		Rules: []nft.Rule{
			nft.If(nft.SocketOwned(), nft.TCP(), nft.DaddrIn(v4)).Then(nft.SNAT(netip.MustParseAddr(mesh.ProbeSourceV4))),
			nft.If(nft.SocketOwned(), nft.TCP(), nft.DaddrIn(v6)).Then(nft.SNAT(netip.MustParseAddr(mesh.ProbeSourceV6))),
		},
	}}}
}
