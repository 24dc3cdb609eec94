package nft_test

import (
	"testing"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
)

func BenchmarkApply(b *testing.B) {
	ns := benchSpace(b)
	for b.Loop() {
		if err := nft.Apply(ns, everything()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompare(b *testing.B) {
	ns := benchSpace(b)
	if err := nft.Apply(ns, everything()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if d, err := nft.Compare(ns, everything()); err != nil || len(d) > 0 {
			b.Fatal(d, err)
		}
	}
}

func benchSpace(b *testing.B) *netns.Namespace {
	ns, err := netns.New()
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { ns.Close() })
	b.ReportAllocs()
	return ns
}
