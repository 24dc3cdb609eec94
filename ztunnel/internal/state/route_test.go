package state

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
)

func ip(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

func wl(name, addr string, change ...func(*workload.Workload)) *workload.Address {
	w := &workload.Workload{
		Uid: "c//Pod/ns/" + name, Name: name, Namespace: "ns", ServiceAccount: name, TunnelProtocol: workload.TunnelProtocol_HBONE, ClusterId: "c",
	}
	if addr != "" {
		w.Addresses = [][]byte{ip(addr)}
	}
	for _, f := range change {
		f(w)
	}
	return &workload.Address{Type: &workload.Address_Workload{Workload: w}}
}

// serves puts a workload behind services: port 80 leads to target.
func serves(target uint32, services ...string) func(*workload.Workload) {
	return func(w *workload.Workload) {
		w.Services = map[string]*workload.PortList{}
		for _, s := range services {
			w.Services["ns/"+s] = &workload.PortList{Ports: []*workload.Port{{ServicePort: 80, TargetPort: target}}}
		}
	}
}

func svc(host, vip string, change ...func(*workload.Service)) *workload.Address {
	s := &workload.Service{
		Name: host, Namespace: "ns", Hostname: host,
		Ports: []*workload.Port{{ServicePort: 80, TargetPort: 8080}},
	}
	if vip != "" {
		s.Addresses = []*workload.NetworkAddress{{Address: ip(vip)}}
	}
	for _, f := range change {
		f(s)
	}
	return &workload.Address{Type: &workload.Address_Service{Service: s}}
}

func waypoint(host string) *workload.GatewayAddress {
	return &workload.GatewayAddress{Destination: &workload.GatewayAddress_Hostname{Hostname: &workload.NamespacedHostname{Namespace: "ns", Hostname: host}}, HboneMtlsPort: 15008}
}

func account(name string) identity.ID {
	return identity.ID{TrustDomain: "td", Namespace: "ns", ServiceAccount: name}
}

func hopTo(addr, who string) hbone.Hop {
	return hbone.Hop{Addr: netip.MustParseAddrPort(addr), Own: account("client"), Expect: []identity.ID{account(who)}}
}

func storeOf(t *testing.T, pick uint64, all ...*workload.Address) *Store {
	t.Helper()
	s := New(Config{TrustDomain: "td", Pick: func(n uint64) uint64 { return min(pick, n-1) }})
	if err := s.ApplyAddresses(Addresses{Set: append(all, wl("client", "10.0.0.1", func(w *workload.Workload) { w.Node, w.Locality = "n1", &workload.Locality{Region: "r1", Zone: "z1"} }))}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRoute(t *testing.T) {
	onNode := func(node, zone string) func(*workload.Workload) {
		return func(w *workload.Workload) {
			w.Node, w.Locality = node, &workload.Locality{Region: "r1", Zone: zone}
		}
	}
	sick := func(w *workload.Workload) { w.Status = workload.WorkloadStatus_UNHEALTHY }
	plain := func(w *workload.Workload) { w.TunnelProtocol = workload.TunnelProtocol_NONE }
	balance := func(m workload.LoadBalancing_Mode, scopes ...Scope) func(*workload.Service) {
		return func(s *workload.Service) {
			s.LoadBalancing = &workload.LoadBalancing{Mode: m, RoutingPreference: scopes}
		}
	}
	both := func(fs ...func(*workload.Workload)) func(*workload.Workload) {
		return func(w *workload.Workload) {
			for _, f := range fs {
				f(w)
			}
		}
	}
	tests := []struct {
		name string
		all  []*workload.Address
		to   string
		pick uint64
		want Route
		why  string
	}{
		{name: "an address that nobody knows passes through", to: "8.8.8.8:53", want: Route{Kind: Passthrough, Type: "Passthrough"}, why: "8.8.8.8 is neither a service nor a workload of the mesh"},
		{name: "a pod's address leads to the pod", all: []*workload.Address{wl("b", "10.0.0.2")}, to: "10.0.0.2:9080", want: Route{Kind: HBONE, Type: Direct, Hop: hopTo("10.0.0.2:15008", "b")}, why: "workload c//Pod/ns/b"},
		{name: "an IPv4-mapped address is the IPv4 address", all: []*workload.Address{wl("b", "10.0.0.2")}, to: "[::ffff:10.0.0.2]:9080", want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b")}, why: "workload c//Pod/ns/b"},
		{name: "a pod outside the mesh is reached in plain text", all: []*workload.Address{wl("b", "10.0.0.2", plain)}, to: "10.0.0.2:9080", want: Route{Kind: Plaintext, Type: Direct}, why: "workload c//Pod/ns/b, which has no tunnel"},
		{name: "a host-network pod is not found by its node's address", all: []*workload.Address{wl("b", "10.0.0.2", func(w *workload.Workload) { w.NetworkMode = workload.NetworkMode_HOST_NETWORK })}, to: "10.0.0.2:9080", want: Route{Kind: Passthrough, Type: "Passthrough"}, why: "10.0.0.2 is neither a service nor a workload of the mesh"},
		{
			name: "a service leads to an endpoint and its target port", all: []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.2", serves(9080, "web"))}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b")}, why: "service ns/web, endpoint c//Pod/ns/b",
		},
		{
			name: "an endpoint written by hand that has a pod's address is the pod", all: []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.2"), wl("slice", "10.0.0.2", serves(9080, "web"), plain, func(w *workload.Workload) {
				w.Uid, w.ServiceAccount, w.NetworkMode = "c/discovery.k8s.io/EndpointSlice/ns/slice/10.0.0.2", "", workload.NetworkMode_HOST_NETWORK
			})}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b")}, why: "service ns/web, endpoint c//Pod/ns/b",
		},
		{
			name: "an endpoint written by hand that has no pod's address is reached in plain text", all: []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.3"), wl("slice", "10.0.0.2", serves(9080, "web"), plain, func(w *workload.Workload) {
				w.Uid, w.ServiceAccount, w.NetworkMode = "c/discovery.k8s.io/EndpointSlice/ns/slice/10.0.0.2", "", workload.NetworkMode_HOST_NETWORK
			})}, to: "10.96.0.1:80",
			want: Route{Kind: Plaintext, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080")}, why: "service ns/web, endpoint c/discovery.k8s.io/EndpointSlice/ns/slice/10.0.0.2, which has no tunnel",
		},
		{name: "a service without endpoints refuses", all: []*workload.Address{svc("web", "10.96.0.1")}, to: "10.96.0.1:80", want: Route{}, why: "no healthy upstream: 10.96.0.1:80: service ns/web has no endpoint"},
		{name: "a service's port that is not there refuses", all: []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.2", serves(9080, "web"))}, to: "10.96.0.1:81", want: Route{}, why: "no healthy upstream: 10.96.0.1:81: service ns/web has 1 endpoint(s): 1 without a port for 81"},
		{name: "an unhealthy endpoint is not chosen", all: []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.2", serves(9080, "web"), sick)}, to: "10.96.0.1:80", want: Route{}, why: "no healthy upstream: 10.96.0.1:80: service ns/web has 1 endpoint(s): 1 unhealthy"},
		{
			name: "an unhealthy endpoint is chosen where the service allows it", all: []*workload.Address{svc("web", "10.96.0.1", func(s *workload.Service) {
				s.LoadBalancing = &workload.LoadBalancing{HealthPolicy: workload.LoadBalancing_ALLOW_ALL}
			}), wl("b", "10.0.0.2", serves(9080, "web"), sick)}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b")}, why: "service ns/web, endpoint c//Pod/ns/b",
		},
		{
			name: "capacity is a weight", all: []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.2", serves(9080, "web"), func(w *workload.Workload) { w.Capacity = wrapperspb.UInt32(3) }), wl("c", "10.0.0.3", serves(9080, "web"))}, to: "10.96.0.1:80", pick: 3,
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.3:9080"), Hop: hopTo("10.0.0.3:15008", "c")}, why: "service ns/web, endpoint c//Pod/ns/c",
		},
		{
			name: "failover prefers the nearest", all: []*workload.Address{
				svc("web", "10.96.0.1", balance(workload.LoadBalancing_FAILOVER, workload.LoadBalancing_ZONE, workload.LoadBalancing_NODE)),
				wl("b", "10.0.0.2", both(serves(9080, "web"), onNode("n2", "z1"))), wl("c", "10.0.0.3", both(serves(9080, "web"), onNode("n1", "z1"))),
			}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.3:9080"), Hop: hopTo("10.0.0.3:15008", "c")}, why: "service ns/web, endpoint c//Pod/ns/c",
		},
		{
			name: "failover goes far when nothing is near", all: []*workload.Address{
				svc("web", "10.96.0.1", balance(workload.LoadBalancing_FAILOVER, workload.LoadBalancing_ZONE)), wl("b", "10.0.0.2", both(serves(9080, "web"), onNode("n2", "z2"))),
			}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b")}, why: "service ns/web, endpoint c//Pod/ns/b",
		},
		{
			name: "strict stays near", all: []*workload.Address{
				svc("web", "10.96.0.1", balance(workload.LoadBalancing_STRICT, workload.LoadBalancing_NODE)), wl("b", "10.0.0.2", both(serves(9080, "web"), onNode("n2", "z1"))),
			}, to: "10.96.0.1:80", want: Route{}, why: "no healthy upstream: 10.96.0.1:80: service ns/web has 1 endpoint(s): 1 too far away for its traffic policy",
		},
		{
			name: "a service's waypoint is the hop, the service stays the target", all: []*workload.Address{
				svc("web", "10.96.0.1", func(s *workload.Service) { s.Waypoint = waypoint("wp") }), wl("b", "10.0.0.2", serves(9080, "web")),
				svc("wp", "10.96.0.9", func(s *workload.Service) { s.Ports = []*workload.Port{{ServicePort: 15008, TargetPort: 15008}} }),
				wl("wp1", "10.0.0.9", func(w *workload.Workload) {
					w.Services = map[string]*workload.PortList{"ns/wp": {Ports: []*workload.Port{{ServicePort: 15008, TargetPort: 15008}}}}
				}),
			}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: ToServerWaypoint, Hop: hopTo("10.0.0.9:15008", "wp1")}, why: "service ns/web has waypoint ns/wp",
		},
		{
			name: "a waypoint that is not known is not gone around", all: []*workload.Address{
				svc("web", "10.96.0.1", func(s *workload.Service) { s.Waypoint = waypoint("wp") }), wl("b", "10.0.0.2", serves(9080, "web")),
			}, to: "10.96.0.1:80", want: Route{}, why: "unknown waypoint: ns/wp: it was not received",
		},
		{
			name: "a workload's waypoint without endpoints refuses", all: []*workload.Address{
				wl("b", "10.0.0.2", func(w *workload.Workload) { w.Waypoint = waypoint("wp") }), svc("wp", "10.96.0.9"),
			}, to: "10.0.0.2:9080", want: Route{}, why: "unknown waypoint: ns/wp: service ns/wp has no endpoint",
		},
		{
			name: "an identity of the service is accepted too", all: []*workload.Address{
				svc("web", "10.96.0.1", func(s *workload.Service) { s.SubjectAltNames = []string{"spiffe://td/ns/ns/sa/extra", "no identity"} }), wl("b", "10.0.0.2", serves(9080, "web")),
			}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hbone.Hop{Addr: netip.MustParseAddrPort("10.0.0.2:15008"), Own: account("client"), Expect: []identity.ID{account("b"), account("extra")}}}, why: "service ns/web, endpoint c//Pod/ns/b",
		},
		{
			name: "another network's block is another", all: []*workload.Address{svc("wide", "", func(s *workload.Service) {
				s.Addresses = []*workload.NetworkAddress{{Network: "n2", Address: ip("10.7.0.0"), Length: proto.Uint32(16)}}
			})}, to: "10.7.1.9:80", want: Route{Kind: Passthrough, Type: "Passthrough"}, why: "10.7.1.9 is neither a service nor a workload of the mesh",
		},
		{
			name: "a wide block of the client's namespace comes before a narrow one of another", all: []*workload.Address{
				svc("wide", "", func(s *workload.Service) {
					s.Addresses = []*workload.NetworkAddress{{Address: ip("fd07::"), Length: proto.Uint32(32)}}
				}),
				svc("narrow", "", func(s *workload.Service) {
					s.Namespace, s.Addresses = "other", []*workload.NetworkAddress{{Address: ip("fd07:0:1::"), Length: proto.Uint32(64)}}
				}),
				wl("b", "fd00::2", serves(9080, "wide")),
			}, to: "[fd07:0:1::9]:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("[fd00::2]:9080"), Hop: hopTo("[fd00::2]:15008", "b")}, why: "service ns/wide, endpoint c//Pod/ns/b",
		},
		{
			name: "a block of addresses belongs to the narrowest service", all: []*workload.Address{
				svc("wide", "", func(s *workload.Service) {
					s.Addresses = []*workload.NetworkAddress{{Address: ip("10.7.0.0"), Length: proto.Uint32(16)}}
				}),
				svc("narrow", "", func(s *workload.Service) {
					s.Addresses = []*workload.NetworkAddress{{Address: ip("10.7.1.0"), Length: proto.Uint32(24)}}
				}),
				wl("b", "10.0.0.2", serves(9080, "narrow")),
			}, to: "10.7.1.9:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b")}, why: "service ns/narrow, endpoint c//Pod/ns/b",
		},
		{
			name: "a private service of another namespace does not exist", all: []*workload.Address{
				svc("web", "10.96.0.1", func(s *workload.Service) { s.Namespace, s.Visibility = "other", workload.Service_NAMESPACE }),
			}, to: "10.96.0.1:80", want: Route{Kind: Passthrough, Type: "Passthrough"}, why: "10.96.0.1 is neither a service nor a workload of the mesh",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := storeOf(t, tt.pick, tt.all...)
			to := netip.MustParseAddrPort(tt.to)
			if !tt.want.To.IsValid() {
				tt.want.To = to
			}
			got := s.Route(s.Workload(netip.MustParseAddr("10.0.0.1")), to)
			if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.IgnoreFields(Route{}, "Service", "Workload", "Waypoint", "Via", "why")); d != "" {
				t.Errorf("Route(%s): -want +got\n%s", tt.to, d)
			}
			if got.Why() != tt.why {
				t.Errorf("Route(%s): why is %q, want %q", tt.to, got.Why(), tt.why)
			}
		})
	}
}

func TestClientsNamespaceIsPreferred(t *testing.T) {
	other := svc("web", "10.96.0.1", func(s *workload.Service) { s.Namespace, s.Canonical = "other", true })
	s := storeOf(t, 0, other, svc("web", "10.96.0.1"))
	r := s.Route(s.Workload(netip.MustParseAddr("10.0.0.1")), netip.MustParseAddrPort("10.96.0.1:80"))
	if r.Service == nil || r.Service.Namespace != "ns" {
		t.Errorf("service %+v, want the one of the client's namespace", r.Service)
	}
}

func TestChangesLeaveNothingBehind(t *testing.T) {
	s := storeOf(t, 0, svc("web", "10.96.0.1"), wl("b", "10.0.0.2", serves(9080, "web")))
	changed := s.Changed()
	if err := s.ApplyAddresses(Addresses{Set: []*workload.Address{wl("b", "10.0.0.3"), svc("web", "10.96.0.2")}}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("the change was not told")
	}
	if s.Workload(netip.MustParseAddr("10.0.0.2")) != nil || s.Workload(netip.MustParseAddr("::ffff:10.0.0.3")) == nil {
		t.Error("the workload is not where it moved to")
	}
	if err := s.ApplyAddresses(Addresses{Remove: []string{"c//Pod/ns/b", "ns/web", "c//Pod/ns/client", "never/there"}}); err != nil {
		t.Fatal(err)
	}
	if n := s.index.size(); n != 0 {
		t.Errorf("%d entries are left of what was removed", n)
	}
}

func TestOnePodTakesOverAnothersAddress(t *testing.T) {
	s := storeOf(t, 0, wl("old", "10.0.0.2"), wl("new", "10.0.0.2"))
	if err := s.ApplyAddresses(Addresses{Remove: []string{"c//Pod/ns/old"}}); err != nil {
		t.Fatal(err)
	}
	if w := s.Workload(netip.MustParseAddr("10.0.0.2")); w == nil || w.Name != "new" {
		t.Errorf("address belongs to %+v, want new", w)
	}
}
