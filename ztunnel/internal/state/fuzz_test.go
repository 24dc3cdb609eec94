package state

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
)

// Whatever two resources and a policy say: every decision about them is taken without a panic, what has a waypoint is
// never gone around, and nothing of them is left when they are gone.
func FuzzApply(f *testing.F) {
	pack := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	guarded := func(s *workload.Service) { s.Waypoint = waypoint("wp") }
	f.Add(pack(wl("b", "10.0.0.2", serves(80, "web"))), pack(svc("web", "10.96.0.1")), pack(&authorization.Authorization{Namespace: "ns", Name: "p"}))
	f.Add(pack(wl("wp1", "10.0.0.9", gatewayPods("wp"))), pack(svc("wp", "10.96.0.9", guarded)), []byte{})
	f.Fuzz(func(t *testing.T, first, second, policy []byte) {
		s := New(Config{TrustDomain: "td", Pick: func(uint64) uint64 { return 0 }})
		var remove []string
		for _, b := range [][]byte{first, second} {
			a := &workload.Address{}
			if proto.Unmarshal(b, a) != nil {
				continue
			}
			_ = s.ApplyAddresses(Addresses{Set: []*workload.Address{a, a}}) // refusing is fine; twice is once
			remove = append(remove, a.GetWorkload().GetUid(), a.GetService().GetNamespace()+"/"+a.GetService().GetHostname())
		}
		p := &authorization.Authorization{}
		if proto.Unmarshal(policy, p) == nil {
			_ = s.ApplyPolicies(Policies{Set: []*authorization.Authorization{p}, Names: []string{"p"}}) // the same
		}
		clients := []*Workload{{Kin: &Kin{Namespace: "ns"}, Place: &Place{}}}
		var targets []netip.Addr
		snapshot := s.Snapshot()
		for _, w := range snapshot.Workloads {
			clients, targets = append(clients, w), append(targets, w.Addresses...)
			s.PoliciesOf(w)
		}
		for _, v := range snapshot.Services {
			s.Named(v.Hostname, "ns")
			for _, a := range v.Addresses {
				targets = append(targets, a.Block.Addr())
			}
		}
		for _, from := range clients {
			for _, a := range targets {
				to := netip.AddrPortFrom(a, 80)
				r := s.Route(from, to)
				_, _ = r.Why(), s.Needs(from, a)
				if r.Service == nil {
					continue
				}
				s.Choices(from, r.Service, to)
				guarded := r.Service.Waypoint != nil || len(r.Service.Weighted) > 0
				if guarded && r.Kind != Refuse && r.Type != ToServerWaypoint && !s.IsWaypointFor(from, a) {
					t.Errorf("goes around the waypoint: %+v, %s", r, r.Why())
				}
			}
		}
		_ = s.ApplyAddresses(Addresses{Remove: remove})
		_ = s.ApplyPolicies(Policies{Remove: []string{"p"}})
		if n := s.index.size() + len(s.policies.byName) + len(s.policies.applying); n != 0 {
			t.Fatalf("%d entries are left", n)
		}
	})
}
