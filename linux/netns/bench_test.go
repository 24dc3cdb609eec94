package netns_test

import (
	"testing"

	"github.com/ambit-mesh/ambit/linux/netns"
)

func BenchmarkDo(b *testing.B) {
	ns, err := netns.New()
	if err != nil {
		b.Skip(err)
	}
	defer ns.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := netns.Do(ns, func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
