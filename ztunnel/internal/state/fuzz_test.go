package state

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/workload"
)

func FuzzApply(f *testing.F) {
	for _, a := range []*workload.Address{wl("b", "10.0.0.2", serves(80, "web")), svc("web", "10.96.0.1")} {
		b, err := proto.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &workload.Address{}
		if proto.Unmarshal(b, a) != nil {
			return
		}
		s := New(Config{TrustDomain: "td", Pick: func(uint64) uint64 { return 0 }})
		_ = s.ApplyAddresses(Addresses{Set: []*workload.Address{a}}) // refusing is fine
		from := &Workload{Kin: &Kin{Namespace: "ns"}, Place: &Place{}}
		for _, w := range s.Snapshot().Workloads {
			for _, addr := range w.Addresses {
				s.Route(from, netip.AddrPortFrom(addr, 80))
			}
		}
		for _, v := range s.Snapshot().Services {
			for _, addr := range v.Addresses {
				s.Route(from, netip.AddrPortFrom(addr.Block.Addr(), 80))
			}
		}
		_ = s.ApplyAddresses(Addresses{Remove: []string{a.GetWorkload().GetUid(), a.GetService().GetNamespace() + "/" + a.GetService().GetHostname()}})
		if n := s.index.size(); n != 0 {
			t.Fatalf("%d entries are left", n)
		}
	})
}
