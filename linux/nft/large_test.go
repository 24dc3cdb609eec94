package nft_test

import (
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/nft"
)

// A node's Services are one table: it must go in whole also where socket buffers are those of an ordinary user.
func TestLargeTableGoesInWhole(t *testing.T) {
	ns := netnstest.New(t)
	table := nft.Table{Name: "large", Sets: []nft.Set{{Name: "s", Kind: nft.AddrsV4}}, Chains: []nft.Chain{{
		Name: "out", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDNAT,
	}}}
	for i := range 1000 {
		vip := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		table.Chains[0].Rules = append(table.Chains[0].Rules, nft.If(nft.Daddr(nft.Host(vip)), nft.TCP(), nft.Dport(80)).
			Then(nft.DNAT(addrPort("10.244.1.1:8080"), addrPort("10.244.1.2:8080"))))
	}
	for i := range 5000 {
		table.Sets[0].Elements = append(table.Sets[0].Elements, nft.Host(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})))
	}
	for range 2 {
		must(t, nft.Apply(ns, table))
	}
	if d, err := nft.Compare(ns, table); err != nil || len(d) > 0 {
		t.Fatalf("kernel differs: %v, %v", err, d[:min(len(d), 3)])
	}
}
