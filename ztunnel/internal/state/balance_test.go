package state

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ambit-mesh/ambit/api/workload"
)

// place is where an endpoint is.
func place(network, region, zone, subzone, node, cluster string) func(*workload.Workload) {
	return func(w *workload.Workload) {
		w.Network, w.Node, w.ClusterId = network, node, cluster
		w.Locality = &workload.Locality{Region: region, Zone: zone, Subzone: subzone}
	}
}

func all[T any](fs ...func(*T)) func(*T) {
	return func(x *T) {
		for _, f := range fs {
			f(x)
		}
	}
}

// shares1000 counts how often each endpoint is chosen in a thousand connections.
func shares1000(t *testing.T, s *Store, to string) string {
	t.Helper()
	from := s.Workload(netip.MustParseAddr("10.0.0.1"))
	n := map[string]int{}
	for range 1000 {
		r := s.Route(from, netip.MustParseAddrPort(to))
		name := "refused"
		if r.Workload != nil {
			name = r.Workload.Name
		}
		n[name]++
	}
	return fmt.Sprint(n) // in the order of keys
}

func TestDistribution(t *testing.T) {
	weigh := func(n uint32) func(*workload.Workload) {
		return func(w *workload.Workload) { w.Capacity = wrapperspb.UInt32(n) }
	}
	sick := func(w *workload.Workload) { w.Status = workload.WorkloadStatus_UNHEALTHY }
	behind := serves(9080, "web")
	lb := func(m workload.LoadBalancing_Mode, scopes ...Scope) func(*workload.Service) {
		return func(s *workload.Service) {
			s.LoadBalancing = &workload.LoadBalancing{Mode: m, RoutingPreference: scopes}
		}
	}
	publish := func(s *workload.Service) {
		s.LoadBalancing = &workload.LoadBalancing{HealthPolicy: workload.LoadBalancing_ALLOW_ALL}
	}
	failover, strict := workload.LoadBalancing_FAILOVER, workload.LoadBalancing_STRICT
	// As Kubernetes' trafficDistribution and internalTrafficPolicy become.
	sameZone := lb(failover, workload.LoadBalancing_NETWORK, workload.LoadBalancing_REGION, workload.LoadBalancing_ZONE, workload.LoadBalancing_SUBZONE)
	sameNode := lb(failover, workload.LoadBalancing_NETWORK, workload.LoadBalancing_REGION, workload.LoadBalancing_ZONE, workload.LoadBalancing_SUBZONE, workload.LoadBalancing_NODE)
	local := lb(strict, workload.LoadBalancing_NODE)
	everywhere := []*workload.Address{
		wl("node", "10.0.0.2", all(behind, place("", "r1", "z1", "s1", "n1", "c"))), wl("subzone", "10.0.0.3", all(behind, place("", "r1", "z1", "s1", "n2", "c"))),
		wl("zone", "10.0.0.4", all(behind, place("", "r1", "z1", "s2", "n3", "c"))), wl("region", "10.0.0.5", all(behind, place("", "r1", "z2", "s1", "n4", "c"))),
		wl("far", "10.0.0.6", all(behind, place("", "r2", "z1", "s1", "n1", "d"))),
	}
	for _, tc := range []struct {
		name string
		svc  func(*workload.Service)
		all  []*workload.Address
		want string
	}{
		{name: "equal ones share equally", all: []*workload.Address{wl("b", "10.0.0.2", behind), wl("c", "10.0.0.3", behind)}, want: "map[b:471 c:529]"},
		{name: "capacity is a share", all: []*workload.Address{wl("b", "10.0.0.2", all(behind, weigh(3))), wl("c", "10.0.0.3", all(behind, weigh(1))), wl("d", "10.0.0.4", all(behind, weigh(0)))}, want: "map[b:719 c:281]"},
		{name: "the largest capacities do not overflow", all: []*workload.Address{wl("b", "10.0.0.2", all(behind, weigh(1<<32-1))), wl("c", "10.0.0.3", all(behind, weigh(1<<32-1)))}, want: "map[b:487 c:513]"},
		{name: "the unhealthy get nothing", all: []*workload.Address{wl("b", "10.0.0.2", behind), wl("c", "10.0.0.3", all(behind, sick))}, want: "map[b:1000]"},
		{name: "unless not-ready addresses are published", svc: publish, all: []*workload.Address{wl("b", "10.0.0.2", behind), wl("c", "10.0.0.3", all(behind, sick))}, want: "map[b:471 c:529]"},
		{name: "PreferSameZone stays in the subzone", svc: sameZone, all: everywhere, want: "map[node:471 subzone:529]"},
		{name: "PreferSameZone goes to the zone", svc: sameZone, all: everywhere[2:], want: "map[zone:1000]"},
		{name: "PreferSameZone goes to the region", svc: sameZone, all: everywhere[3:], want: "map[region:1000]"},
		{name: "PreferSameZone goes anywhere", svc: sameZone, all: everywhere[4:], want: "map[far:1000]"},
		{name: "PreferSameNode stays on the node", svc: sameNode, all: everywhere, want: "map[node:1000]"},
		{name: "PreferSameNode goes to the subzone", svc: sameNode, all: everywhere[1:], want: "map[subzone:1000]"},
		{name: "internalTrafficPolicy Local stays on the node", svc: local, all: everywhere, want: "map[far:471 node:529]"},
		{name: "internalTrafficPolicy Local goes nowhere else", svc: local, all: everywhere[1:4], want: "map[refused:1000]"},
		{name: "the cluster is a scope", svc: lb(strict, workload.LoadBalancing_CLUSTER), all: everywhere[3:], want: "map[region:1000]"},
		{name: "scopes count from the first on", svc: lb(failover, workload.LoadBalancing_NODE, workload.LoadBalancing_REGION), all: everywhere[2:], want: "map[far:1000]"},
		{name: "without a mode scopes do not count", svc: lb(0, workload.LoadBalancing_NODE), all: everywhere[3:], want: "map[far:471 region:529]"},
		{name: "another network is never chosen", svc: lb(failover, workload.LoadBalancing_ZONE), all: []*workload.Address{wl("b", "10.0.0.2", all(behind, place("n2", "r1", "z1", "s1", "n1", "c"))), everywhere[4]}, want: "map[far:1000]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.svc == nil {
				tc.svc = func(*workload.Service) {}
			}
			s := New(Config{TrustDomain: "td", Pick: rand.New(rand.NewPCG(1, 2)).Uint64N})
			client := wl("client", "10.0.0.1", place("", "r1", "z1", "s1", "n1", "c"))
			if err := s.ApplyAddresses(Addresses{Set: append(tc.all, client, svc("web", "10.96.0.1", tc.svc))}); err != nil {
				t.Fatal(err)
			}
			if got := shares1000(t, s, "10.96.0.1:80"); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

func TestNetworkFirst(t *testing.T) {
	at := func(network, region, zone string) *Workload {
		return &Workload{Kin: &Kin{Network: network}, Place: &Place{Region: region, Zone: zone}}
	}
	scopes := []Scope{workload.LoadBalancing_NETWORK, workload.LoadBalancing_REGION, workload.LoadBalancing_ZONE}
	order := []*Workload{at("b", "x", "x"), at("b", "r", "x"), at("b", "r", "z"), at("a", "x", "x"), at("a", "r", "x"), at("a", "r", "z")}
	for i, w := range order {
		if rank, whole := rankOf(at("a", "r", "z"), w, scopes); rank != i || whole != (i == 5) {
			t.Errorf("rank of %s/%s/%s is %d, %v; want %d", w.Network, w.Region, w.Zone, rank, whole, i)
		}
	}
}

func TestPortsAndAddressesOfEndpoints(t *testing.T) {
	named := func(s *workload.Service) { s.Ports = []*workload.Port{{ServicePort: 80}} }
	v4 := func(s *workload.Service) { s.IpFamilies = workload.IPFamilies_IPV4_ONLY }
	v6 := func(s *workload.Service) { s.IpFamilies = workload.IPFamilies_IPV6_ONLY }
	both := func(w *workload.Workload) { w.Addresses = [][]byte{ip("10.0.0.2"), ip("fd00::2")} }
	member := func(w *workload.Workload) { w.Services = map[string]*workload.PortList{"ns/web": {}} }
	twoVIPs := func(s *workload.Service) {
		s.Addresses = append(s.Addresses, &workload.NetworkAddress{Address: ip("fd00::96")})
	}
	host := func(w *workload.Workload) {
		w.Hostname, w.TunnelProtocol = "db.example.com", workload.TunnelProtocol_NONE
	}
	for _, tc := range []struct {
		name string
		svc  *workload.Address
		w    *workload.Address
		to   string
		want string
	}{
		{name: "an endpoint's own port comes first", svc: svc("web", "10.96.0.1"), w: wl("b", "10.0.0.2", serves(9080, "web")), to: "10.96.0.1:80", want: "10.0.0.2:9080"},
		{name: "the service's else", svc: svc("web", "10.96.0.1"), w: wl("b", "10.0.0.2", member), to: "10.96.0.1:80", want: "10.0.0.2:8080"},
		{name: "a named port is the endpoint's", svc: svc("web", "10.96.0.1", named), w: wl("b", "10.0.0.2", serves(9080, "web")), to: "10.96.0.1:80", want: "10.0.0.2:9080"},
		{name: "an endpoint that has not that name is none", svc: svc("web", "10.96.0.1", named), w: wl("b", "10.0.0.2", member), to: "10.96.0.1:80", want: "refused"},
		{name: "the family that was dialled", svc: svc("web", "10.96.0.1", twoVIPs), w: wl("b", "", all(serves(9080, "web"), both)), to: "[fd00::96]:80", want: "[fd00::2]:9080"},
		{name: "the other one if there is no such", svc: svc("web", "10.96.0.1", twoVIPs), w: wl("b", "10.0.0.2", serves(9080, "web")), to: "[fd00::96]:80", want: "10.0.0.2:9080"},
		{name: "never one that the service is not reached by", svc: svc("web", "10.96.0.1", all(twoVIPs, v4)), w: wl("b", "", all(serves(9080, "web"), both)), to: "[fd00::96]:80", want: "10.0.0.2:9080"},
		{name: "an endpoint without it is none", svc: svc("web", "10.96.0.1", v6), w: wl("b", "10.0.0.2", serves(9080, "web")), to: "10.96.0.1:80", want: "refused"},
		{name: "a host name is resolved on demand", svc: svc("web", "10.96.0.1"), w: wl("b", "", all(serves(9080, "web"), host)), to: "10.96.0.1:80", want: "db.example.com 192.0.2.7:9080"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := storeOf(t, 0, tc.svc, tc.w)
			r := s.Route(s.Workload(netip.MustParseAddr("10.0.0.1")), netip.MustParseAddrPort(tc.to))
			got := r.To.String()
			switch {
			case r.Kind == Refuse:
				got = "refused"
			case r.Resolve != "":
				got = r.Resolve + " " + r.At(netip.MustParseAddr("192.0.2.7")).To.String()
			}
			if got != tc.want {
				t.Errorf("%s (%s), want %s", got, r.Why(), tc.want)
			}
		})
	}
}

func TestEndpointOfAHostNameInTheMesh(t *testing.T) {
	s := storeOf(t, 0, svc("web", "10.96.0.1"), wl("vm", "", all(serves(9080, "web"), func(w *workload.Workload) { w.Hostname = "vm.example.com" })))
	r := s.Route(s.Workload(netip.MustParseAddr("10.0.0.1")), netip.MustParseAddrPort("10.96.0.1:80"))
	if got := r.At(netip.MustParseAddr("192.0.2.7")); r.Resolve != "vm.example.com" || got.Hop.Addr.String() != "192.0.2.7:15008" || got.To.String() != "192.0.2.7:9080" || len(got.Hop.Expect) != 1 {
		t.Errorf("route %+v, then %+v", r, got)
	}
	if no := r.Unresolved(fmt.Errorf("NXDOMAIN")); no.Kind != Refuse || no.Why() != "no address of endpoint c//Pod/ns/vm, host vm.example.com: NXDOMAIN" {
		t.Errorf("%s: %s", no.Kind, no.Why())
	}
}
