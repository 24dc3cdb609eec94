package network_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/local/internal/network"
)

func TestFreedAddressComesBackLast(t *testing.T) {
	p := network.NewIPAM([]netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")})
	first, err := p.Take()
	if err != nil {
		t.Fatal(err)
	}
	if first[0] != netip.MustParseAddr("10.244.1.2") || first[1] != netip.MustParseAddr("fd00:10:244:1::2") {
		t.Fatalf("first addresses %v", first)
	}
	p.Give(first)
	for range 252 {
		a, err := p.Take()
		if err != nil {
			t.Fatal(err)
		}
		if a[0] == first[0] {
			t.Fatal("a freed address is given again while others are free")
		}
	}
	again, err := p.Take()
	if err != nil || again[0] != first[0] {
		t.Errorf("the last free address is %v (%v), want %v", again, err, first)
	}
	if _, err := p.Take(); !errors.Is(err, network.ErrFull) {
		t.Errorf("Take of a full node = %v, want %v", err, network.ErrFull)
	}
}
