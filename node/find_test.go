package node

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
)

func BenchmarkFind(b *testing.B) {
	netnstest.Need(b)
	dir := b.TempDir()
	for i := range 100 {
		ns := netnstest.New(b)
		if err := link.AddAddr(ns, "lo", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)); err != nil {
			b.Fatal(err)
		}
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := ns.Mount(path); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := netns.Unmount(path); err != nil {
				b.Error(err)
			}
		})
	}
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); err != nil {
		b.Fatal(err)
	}
	s := spaces{dir: dir}
	for b.Loop() {
		ns, err := s.byAddress([]netip.Addr{netip.MustParseAddr("10.0.0.50")})
		if err != nil {
			b.Fatal(err)
		}
		ns.Close()
	}
}
