package state

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/authz"
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
	}{
		{name: "an address that nobody knows passes through", to: "8.8.8.8:53", want: Route{Kind: Passthrough, Type: "Passthrough", Why: "8.8.8.8 is neither a service nor a workload of the mesh"}},
		{name: "a pod's address leads to the pod", all: []*workload.Address{wl("b", "10.0.0.2")}, to: "10.0.0.2:9080", want: Route{Kind: HBONE, Type: Direct, Hop: hopTo("10.0.0.2:15008", "b"), Why: "workload c//Pod/ns/b"}},
		{name: "an IPv4-mapped address is the IPv4 address", all: []*workload.Address{wl("b", "10.0.0.2")}, to: "[::ffff:10.0.0.2]:9080", want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b"), Why: "workload c//Pod/ns/b"}},
		{name: "a pod outside the mesh is reached in plain text", all: []*workload.Address{wl("b", "10.0.0.2", plain)}, to: "10.0.0.2:9080", want: Route{Kind: Plaintext, Type: Direct, Why: "workload c//Pod/ns/b, which has no tunnel"}},
		{name: "a host-network pod is not found by its node's address", all: []*workload.Address{wl("b", "10.0.0.2", func(w *workload.Workload) { w.NetworkMode = workload.NetworkMode_HOST_NETWORK })}, to: "10.0.0.2:9080", want: Route{Kind: Passthrough, Type: "Passthrough", Why: "10.0.0.2 is neither a service nor a workload of the mesh"}},
		{
			name: "a service leads to an endpoint and its target port", all: []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.2", serves(9080, "web"))}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b"), Why: "service ns/web, endpoint c//Pod/ns/b"},
		},
		{name: "a service without endpoints refuses", all: []*workload.Address{svc("web", "10.96.0.1")}, to: "10.96.0.1:80", want: Route{Why: "no healthy upstream: 10.96.0.1:80"}},
		{name: "a service's port that is not there refuses", all: []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.2", serves(9080, "web"))}, to: "10.96.0.1:81", want: Route{Why: "no healthy upstream: 10.96.0.1:81"}},
		{name: "an unhealthy endpoint is not chosen", all: []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.2", serves(9080, "web"), sick)}, to: "10.96.0.1:80", want: Route{Why: "no healthy upstream: 10.96.0.1:80"}},
		{
			name: "an unhealthy endpoint is chosen where the service allows it", all: []*workload.Address{svc("web", "10.96.0.1", func(s *workload.Service) {
				s.LoadBalancing = &workload.LoadBalancing{HealthPolicy: workload.LoadBalancing_ALLOW_ALL}
			}), wl("b", "10.0.0.2", serves(9080, "web"), sick)}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b"), Why: "service ns/web, endpoint c//Pod/ns/b"},
		},
		{
			name: "capacity is a weight", all: []*workload.Address{svc("web", "10.96.0.1"), wl("b", "10.0.0.2", serves(9080, "web"), func(w *workload.Workload) { w.Capacity = wrapperspb.UInt32(3) }), wl("c", "10.0.0.3", serves(9080, "web"))}, to: "10.96.0.1:80", pick: 3,
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.3:9080"), Hop: hopTo("10.0.0.3:15008", "c"), Why: "service ns/web, endpoint c//Pod/ns/c"},
		},
		{
			name: "failover prefers the nearest", all: []*workload.Address{
				svc("web", "10.96.0.1", balance(workload.LoadBalancing_FAILOVER, workload.LoadBalancing_ZONE, workload.LoadBalancing_NODE)),
				wl("b", "10.0.0.2", both(serves(9080, "web"), onNode("n2", "z1"))), wl("c", "10.0.0.3", both(serves(9080, "web"), onNode("n1", "z1"))),
			}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.3:9080"), Hop: hopTo("10.0.0.3:15008", "c"), Why: "service ns/web, endpoint c//Pod/ns/c"},
		},
		{
			name: "failover goes far when nothing is near", all: []*workload.Address{
				svc("web", "10.96.0.1", balance(workload.LoadBalancing_FAILOVER, workload.LoadBalancing_ZONE)), wl("b", "10.0.0.2", both(serves(9080, "web"), onNode("n2", "z2"))),
			}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b"), Why: "service ns/web, endpoint c//Pod/ns/b"},
		},
		{
			name: "strict stays near", all: []*workload.Address{
				svc("web", "10.96.0.1", balance(workload.LoadBalancing_STRICT, workload.LoadBalancing_NODE)), wl("b", "10.0.0.2", both(serves(9080, "web"), onNode("n2", "z1"))),
			}, to: "10.96.0.1:80", want: Route{Why: "no healthy upstream: 10.96.0.1:80"},
		},
		{
			name: "a service's waypoint is the hop, the service stays the target", all: []*workload.Address{
				svc("web", "10.96.0.1", func(s *workload.Service) { s.Waypoint = waypoint("wp") }), wl("b", "10.0.0.2", serves(9080, "web")),
				svc("wp", "10.96.0.9", func(s *workload.Service) { s.Ports = []*workload.Port{{ServicePort: 15008, TargetPort: 15008}} }),
				wl("wp1", "10.0.0.9", func(w *workload.Workload) {
					w.Services = map[string]*workload.PortList{"ns/wp": {Ports: []*workload.Port{{ServicePort: 15008, TargetPort: 15008}}}}
				}),
			}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: ToServerWaypoint, Hop: hopTo("10.0.0.9:15008", "wp1"), Why: "service ns/web has waypoint ns/wp"},
		},
		{
			name: "a waypoint that is not known is not gone around", all: []*workload.Address{
				svc("web", "10.96.0.1", func(s *workload.Service) { s.Waypoint = waypoint("wp") }), wl("b", "10.0.0.2", serves(9080, "web")),
			}, to: "10.96.0.1:80", want: Route{Type: "", Why: "unknown waypoint: ns/wp: it was not received"},
		},
		{
			name: "a workload's waypoint without endpoints refuses", all: []*workload.Address{
				wl("b", "10.0.0.2", func(w *workload.Workload) { w.Waypoint = waypoint("wp") }), svc("wp", "10.96.0.9"),
			}, to: "10.0.0.2:9080", want: Route{Why: "unknown waypoint: ns/wp: no healthy endpoint"},
		},
		{
			name: "an identity of the service is accepted too", all: []*workload.Address{
				svc("web", "10.96.0.1", func(s *workload.Service) { s.SubjectAltNames = []string{"spiffe://td/ns/ns/sa/extra", "no identity"} }), wl("b", "10.0.0.2", serves(9080, "web")),
			}, to: "10.96.0.1:80",
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hbone.Hop{Addr: netip.MustParseAddrPort("10.0.0.2:15008"), Own: account("client"), Expect: []identity.ID{account("b"), account("extra")}}, Why: "service ns/web, endpoint c//Pod/ns/b"},
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
			want: Route{Kind: HBONE, Type: Direct, To: netip.MustParseAddrPort("10.0.0.2:9080"), Hop: hopTo("10.0.0.2:15008", "b"), Why: "service ns/narrow, endpoint c//Pod/ns/b"},
		},
		{
			name: "a private service of another namespace does not exist", all: []*workload.Address{
				svc("web", "10.96.0.1", func(s *workload.Service) { s.Namespace, s.Visibility = "other", workload.Service_NAMESPACE }),
			}, to: "10.96.0.1:80", want: Route{Kind: Passthrough, Type: "Passthrough", Why: "10.96.0.1 is neither a service nor a workload of the mesh"},
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
			if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.IgnoreFields(Route{}, "Service", "Workload")); d != "" {
				t.Errorf("Route(%s): -want +got\n%s", tt.to, d)
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
	if n := len(s.workloads) + len(s.byAddress) + len(s.services) + len(s.byVIP) + len(s.endpoints); n != 0 {
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

func TestWhatIsNotUnderstoodIsRefusedAlone(t *testing.T) {
	s := storeOf(t, 0)
	err := s.ApplyAddresses(Addresses{Set: []*workload.Address{
		wl("bad", "", func(w *workload.Workload) { w.Addresses = [][]byte{{1, 2, 3}} }), {}, wl("good", "10.0.0.2"),
		wl("ext", "10.0.0.3", func(w *workload.Workload) { w.Extensions = []*workload.Extension{{Name: "x"}} }),
	}})
	if err == nil || s.Workload(netip.MustParseAddr("10.0.0.2")) == nil || s.Workload(netip.MustParseAddr("10.0.0.3")) != nil {
		t.Errorf("ApplyAddresses() = %v; want only the good one applied", err)
	}
}

func TestPoliciesOfAWorkload(t *testing.T) {
	s := storeOf(t, 0, wl("b", "10.0.0.2", func(w *workload.Workload) { w.AuthorizationPolicies = []string{"ns/mine", "ns/absent"} }))
	p := func(ns, name string, scope authorization.Scope) *authorization.Authorization {
		return &authorization.Authorization{Namespace: ns, Name: name, Scope: scope}
	}
	if err := s.ApplyPolicies(Policies{Set: []*authorization.Authorization{
		p("", "mesh", authorization.Scope_GLOBAL), p("ns", "namespace", authorization.Scope_NAMESPACE), p("other", "namespace", authorization.Scope_NAMESPACE),
		p("ns", "mine", authorization.Scope_WORKLOAD_SELECTOR), p("ns", "others", authorization.Scope_WORKLOAD_SELECTOR),
	}}); err != nil {
		t.Fatal(err)
	}
	ps := s.PoliciesOf(s.Workload(netip.MustParseAddr("10.0.0.2")))
	if got, want := ps.Names(), []string{"ns/absent", "/mesh", "ns/mine", "ns/namespace"}; !slices.Equal(got, want) {
		t.Errorf("policies %v, want %v", got, want)
	}
	if v := ps.Check(authz.Conn{}); v.Allow || !v.Missing {
		t.Errorf("verdict %+v, want a refusal: one policy was not received", v)
	}
	if err := s.ApplyPolicies(Policies{Set: []*authorization.Authorization{{Namespace: "ns", Name: "namespace", Action: 9}}}); err == nil {
		t.Error("a policy that is not understood was taken without an error")
	}
}

func TestPolicyIsForgottenByItsResourcesName(t *testing.T) {
	s := storeOf(t, 0, wl("b", "10.0.0.2"))
	if err := s.ApplyPolicies(Policies{Set: []*authorization.Authorization{{Name: "p", Scope: authorization.Scope_GLOBAL}}, Names: []string{"root/p"}}); err != nil {
		t.Fatal(err)
	}
	b := s.Workload(netip.MustParseAddr("10.0.0.2"))
	if n := s.PoliciesOf(b).Names(); len(n) != 1 {
		t.Errorf("policies %v, want one", n)
	}
	if err := s.ApplyPolicies(Policies{Remove: []string{"root/p"}}); err != nil {
		t.Fatal(err)
	}
	if n := s.PoliciesOf(b).Names(); len(n) != 0 {
		t.Errorf("policies %v, want none", n)
	}
}

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
		from := &Workload{Namespace: "ns"}
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
		if n := len(s.workloads) + len(s.byAddress) + len(s.services) + len(s.byVIP) + len(s.blocks) + len(s.endpoints) + len(s.applying); n != 0 {
			t.Fatalf("%d entries are left", n)
		}
	})
}
