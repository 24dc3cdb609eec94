package state

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/identity"
)

// gatewayPods puts a workload behind a waypoint's service.
func gatewayPods(service string) func(*workload.Workload) {
	return func(w *workload.Workload) {
		w.Services = map[string]*workload.PortList{"ns/" + service: {Ports: []*workload.Port{{ServicePort: 15008, TargetPort: 15008}}}}
	}
}

func gatewayService(host, vip string) *workload.Address {
	return svc(host, vip, func(s *workload.Service) { s.Ports = []*workload.Port{{ServicePort: 15008, TargetPort: 15008}} })
}

func byAddress(network, addr string) *workload.GatewayAddress {
	return &workload.GatewayAddress{Destination: &workload.GatewayAddress_Address{Address: &workload.NetworkAddress{Network: network, Address: ip(addr)}}, HboneMtlsPort: 15008}
}

// What has a waypoint is reached through it or not at all: no case here may go directly.
func TestWaypointIsNeverGoneAround(t *testing.T) {
	through := func(g *workload.GatewayAddress) func(*workload.Service) {
		return func(s *workload.Service) { s.Waypoint = g }
	}
	guarded := func(g *workload.GatewayAddress) func(*workload.Workload) {
		return func(w *workload.Workload) { w.Waypoint = g }
	}
	web := func(g *workload.GatewayAddress) []*workload.Address {
		return []*workload.Address{svc("web", "10.96.0.1", through(g)), wl("b", "10.0.0.2", serves(9080, "web"))}
	}
	wp := []*workload.Address{gatewayService("wp", "10.96.0.9"), wl("wp1", "10.0.0.9", gatewayPods("wp"))}
	sick := func(w *workload.Workload) { w.Status = workload.WorkloadStatus_UNHEALTHY }
	far := func(w *workload.Workload) { w.Network = "elsewhere" }
	const vip, podIP = "10.96.0.1:80", "10.0.0.2:9080"
	for _, tc := range []struct {
		name, to string
		all      []*workload.Address
		want     string // the hop, or the reason of a refusal
	}{
		{name: "by host name", to: vip, all: append(web(waypoint("wp")), wp...), want: "10.0.0.9:15008"},
		{name: "by its service's address", to: vip, all: append(web(byAddress("", "10.96.0.9")), wp...), want: "10.0.0.9:15008"},
		{name: "by its pod's address", to: vip, all: append(web(byAddress("", "10.0.0.9")), wp...), want: "10.0.0.9:15008"},
		{name: "not received", to: vip, all: web(waypoint("wp")), want: "unknown waypoint: ns/wp: it was not received"},
		{name: "not received, by address", to: vip, all: web(byAddress("", "10.96.0.9")), want: "unknown waypoint: /10.96.0.9: it was not received"},
		{name: "no endpoint yet", to: vip, all: append(web(waypoint("wp")), wp[0]), want: "unknown waypoint: ns/wp: service ns/wp has no endpoint"},
		{name: "no healthy endpoint", to: vip, all: append(web(waypoint("wp")), wp[0], wl("wp1", "10.0.0.9", gatewayPods("wp"), sick)), want: "unknown waypoint: ns/wp: service ns/wp has 1 endpoint(s): 1 unhealthy"},
		{name: "only in another network", to: vip, all: append(web(waypoint("wp")), wp[0], wl("wp1", "10.0.0.9", gatewayPods("wp"), far)), want: `unknown waypoint: ns/wp: service ns/wp has 1 endpoint(s): 1 in network "elsewhere", to which no gateway is known`},
		{name: "without the tunnel's port", to: vip, all: append(web(waypoint("wp")), svc("wp", "10.96.0.9"), wl("wp1", "10.0.0.9", gatewayPods("wp"))), want: "unknown waypoint: ns/wp: service ns/wp has 1 endpoint(s): 1 without a port for 15008"},
		{name: "a waypoint behind a tunnel of its own needs no port", to: vip, all: append(web(waypoint("wp")), svc("wp", "10.96.0.9"), wl("wp1", "10.0.0.9", gatewayPods("wp"), func(w *workload.Workload) {
			w.ApplicationTunnel = &workload.ApplicationTunnel{Protocol: workload.ApplicationTunnel_PROXY, Port: 15088}
		})), want: "10.0.0.9:15008"},
		{name: "an unreadable one", to: vip, all: web(&workload.GatewayAddress{}), want: "service ns/web is not understood: waypoint: neither a host name nor an address: update this proxy"},
		{name: "a workload's", to: podIP, all: append([]*workload.Address{wl("b", "10.0.0.2", guarded(waypoint("wp")))}, wp...), want: "10.0.0.9:15008"},
		{name: "a workload's that is not there", to: podIP, all: []*workload.Address{wl("b", "10.0.0.2", guarded(waypoint("wp")))}, want: "unknown waypoint: ns/wp: it was not received"},
		{name: "a workload's behind a service that keeps addresses", to: podIP, all: append([]*workload.Address{
			svc("any", "10.0.0.2", func(s *workload.Service) {
				s.LoadBalancing = &workload.LoadBalancing{Mode: workload.LoadBalancing_PASSTHROUGH}
			}), wl("b", "10.0.0.2", guarded(waypoint("wp"))),
		}, wp...), want: "10.0.0.9:15008"},
		{name: "all weights are zero: the one named alone", to: vip, all: append([]*workload.Address{svc("web", "10.96.0.1", func(s *workload.Service) {
			s.Waypoint, s.WeightedWaypoints = waypoint("wp"), []*workload.WeightedWaypoint{{Destination: waypoint("other")}}
		})}, wp...), want: "10.0.0.9:15008"},
		{name: "all weights are zero, and there is no other", to: vip, all: append([]*workload.Address{wl("b", "10.0.0.2", serves(9080, "web")), svc("web", "10.96.0.1", func(s *workload.Service) {
			s.WeightedWaypoints = []*workload.WeightedWaypoint{{Destination: waypoint("wp")}}
		})}, wp...), want: "10.0.0.9:15008"},
		{name: "a weighted one that is not there", to: vip, all: append([]*workload.Address{svc("web", "10.96.0.1", func(s *workload.Service) {
			s.Waypoint, s.WeightedWaypoints = waypoint("wp"), []*workload.WeightedWaypoint{{Destination: waypoint("canary"), Weight: 1}}
		})}, wp...), want: "unknown waypoint: ns/canary: it was not received"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := storeOf(t, 0)
			_ = s.ApplyAddresses(Addresses{Set: tc.all}) // one case has what is not understood
			r := s.Route(s.Workload(netip.MustParseAddr("10.0.0.1")), netip.MustParseAddrPort(tc.to))
			got := r.Why()
			if r.Kind != Refuse {
				got = r.Hop.Addr.String()
				if r.Kind != HBONE || r.Type != ToServerWaypoint || r.To.String() != tc.to || r.Hop.Expect[0] != account("wp1") || r.Via == nil || r.Via.Name != "wp1" {
					t.Errorf("goes around its waypoint: %+v", r)
				}
			}
			if got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

func TestWaypointItselfGoesDirectly(t *testing.T) {
	s := storeOf(
		t, 0, svc("web", "10.96.0.1", func(s *workload.Service) { s.Waypoint = waypoint("wp") }), wl("b", "10.0.0.2", serves(9080, "web"), func(w *workload.Workload) { w.Waypoint = waypoint("wp") }),
		gatewayService("wp", "10.96.0.9"), wl("wp1", "10.0.0.9", gatewayPods("wp")),
	)
	for _, to := range []string{"10.96.0.1:80", "10.0.0.2:9080"} {
		if r := s.Route(s.Workload(netip.MustParseAddr("10.0.0.9")), netip.MustParseAddrPort(to)); r.Type != Direct || r.Hop.Addr.String() != "10.0.0.2:15008" {
			t.Errorf("%s: %+v", to, r)
		}
	}
}

func TestWeightedWaypoints(t *testing.T) {
	s := New(Config{TrustDomain: "td", Pick: rand.New(rand.NewPCG(1, 2)).Uint64N})
	if err := s.ApplyAddresses(Addresses{Set: []*workload.Address{
		wl("client", "10.0.0.1"), gatewayService("wp", "10.96.0.9"), wl("wp1", "10.0.0.9", gatewayPods("wp")), gatewayService("canary", "10.96.0.8"), wl("wp2", "10.0.0.8", gatewayPods("canary")),
		svc("web", "10.96.0.1", func(s *workload.Service) {
			s.Waypoint, s.WeightedWaypoints = waypoint("wp"), []*workload.WeightedWaypoint{{Destination: waypoint("wp"), Weight: 90}, {Destination: waypoint("canary"), Weight: 10}}
		}),
	}}); err != nil {
		t.Fatal(err)
	}
	n := map[identity.ID]int{}
	for range 1000 {
		n[s.Route(s.Workload(netip.MustParseAddr("10.0.0.1")), netip.MustParseAddrPort("10.96.0.1:80")).Hop.Expect[0]]++
	}
	if n[account("wp1")] < 870 || n[account("wp2")] < 70 || n[account("wp1")]+n[account("wp2")] != 1000 {
		t.Errorf("of 1000 connections %v", n)
	}
	for _, a := range []string{"10.0.0.9", "10.0.0.8"} {
		if !s.IsWaypointFor(s.Workload(netip.MustParseAddr(a)), netip.MustParseAddr("10.96.0.1")) {
			t.Errorf("%s is no waypoint of the service", a)
		}
	}
}

// A newer control plane may say what this proxy does not know. What it means for security is not guessed: nothing goes
// to such a workload, nor into it, and the control plane is told.
func TestWhatIsNotUnderstoodIsRefused(t *testing.T) { // XD-15
	w := func(name, addr string, f func(*workload.Workload)) *workload.Address { return wl(name, addr, f) }
	for _, tc := range []struct {
		name     string
		a        *workload.Address
		to, want string
		rejected string
	}{
		{"a tunnel protocol", w("b", "10.0.0.2", func(w *workload.Workload) { w.TunnelProtocol = 9 }), "10.0.0.2:80", "tunnel protocol 9 is not known", "c//Pod/ns/b"},
		{"a network mode", w("b", "10.0.0.2", func(w *workload.Workload) { w.NetworkMode = 9 }), "10.0.0.2:80", "network mode 9 is not known", "c//Pod/ns/b"},
		{"an extension", w("b", "10.0.0.2", func(w *workload.Workload) { w.Extensions = []*workload.Extension{{Name: "x"}} }), "10.0.0.2:80", `extension "x" is not known`, "c//Pod/ns/b"},
		{"one of two addresses", w("b", "10.0.0.2", func(w *workload.Workload) { w.Addresses = append(w.Addresses, []byte{1, 2, 3}) }), "10.0.0.2:80", "an address of 3 bytes", "c//Pod/ns/b"},
		{"an application tunnel", w("b", "10.0.0.2", func(w *workload.Workload) { w.ApplicationTunnel = &workload.ApplicationTunnel{Protocol: 7} }), "10.0.0.2:80", "application tunnel of protocol 7 to port 0", "c//Pod/ns/b"},
		{"a load balancing mode", svc("web", "10.96.0.1", func(s *workload.Service) { s.LoadBalancing = &workload.LoadBalancing{Mode: 9} }), "10.96.0.1:80", "load balancing mode 9 is not known", "ns/web"},
		{"a scope", svc("web", "10.96.0.1", func(s *workload.Service) { s.LoadBalancing = &workload.LoadBalancing{RoutingPreference: []Scope{77}} }), "10.96.0.1:80", "load balancing scope 77 is not known", "ns/web"},
		{"IP families", svc("web", "10.96.0.1", func(s *workload.Service) { s.IpFamilies = 9 }), "10.96.0.1:80", "IP families 9 are not known", "ns/web"},
		{"a service's extension", svc("web", "10.96.0.1", func(s *workload.Service) { s.Extensions = []*workload.Extension{{Name: "y"}} }), "10.96.0.1:80", `extension "y" is not known`, "ns/web"},
	} {
		t.Run("XD-15 "+tc.name, func(t *testing.T) {
			s := storeOf(t, 0)
			err := s.ApplyAddresses(Addresses{Set: []*workload.Address{tc.a, wl("good", "10.0.0.7"), {}}})
			bad, ok := err.(*Rejected)
			if !ok || len(bad.Names) != 2 || bad.Names[0] != tc.rejected || s.Workload(netip.MustParseAddr("10.0.0.7")) == nil {
				t.Fatalf("%v; want %s and the empty one rejected, and the good one taken", err, tc.rejected)
			}
			r := s.Route(s.Workload(netip.MustParseAddr("10.0.0.1")), netip.MustParseAddrPort(tc.to))
			if r.Kind != Refuse || !strings.Contains(r.Why(), tc.want) {
				t.Errorf("%s: %s", r.Kind, r.Why())
			}
			if b := s.Workload(netip.MustParseAddr("10.0.0.2")); b != nil && s.PoliciesOf(b).Names() == nil {
				t.Error("connections into it are judged as if no policy applied")
			}
		})
	}
	t.Run("XD-15 a visibility hides", func(t *testing.T) {
		s := storeOf(t, 0, svc("web", "10.96.0.1", func(s *workload.Service) { s.Namespace, s.Visibility = "other", 9 }))
		if r := s.Route(s.Workload(netip.MustParseAddr("10.0.0.1")), netip.MustParseAddrPort("10.96.0.1:80")); r.Service != nil {
			t.Errorf("seen from another namespace: %+v", r)
		}
	})
}

func TestUnknownDestinations(t *testing.T) { // BP-19
	to := netip.MustParseAddrPort("192.0.2.1:443")
	s := storeOf(t, 0)
	from := s.Workload(netip.MustParseAddr("10.0.0.1"))
	if r := s.Route(from, to); r.Kind != Passthrough || r.To != to {
		t.Errorf("by default: %s, %s", r.Kind, r.Why())
	}
	s.conf.RegistryOnly = true
	if r := s.Route(from, to); r.Kind != Refuse || !strings.HasPrefix(r.Why(), "unknown destination: 192.0.2.1 is neither") {
		t.Errorf("REGISTRY_ONLY: %s, %s", r.Kind, r.Why())
	}
}
