package resolve

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

type hosts map[string][]netip.Addr

func (h hosts) Lookup(_ context.Context, _ *netns.Namespace, name string) ([]netip.Addr, error) {
	if a := h[name]; a != nil {
		return a, nil
	}
	return nil, errors.New("NXDOMAIN")
}

type deaf struct{}

func (deaf) Ask(context.Context, ...string) error { return errors.New("the control plane is away") }

func TestHostNameEndpoints(t *testing.T) {
	zero := func(uint64) uint64 { return 0 }
	s := state.New(state.Config{Pick: zero})
	add := func(host, vip string) *workload.Address {
		return &workload.Address{Type: &workload.Address_Service{Service: &workload.Service{
			Name: host, Namespace: "ns", Hostname: host, Addresses: []*workload.NetworkAddress{{Address: netip.MustParseAddr(vip).AsSlice()}}, Ports: []*workload.Port{{ServicePort: 5432, TargetPort: 5433}},
		}}}
	}
	endpoint := func(host string) *workload.Address {
		return &workload.Address{Type: &workload.Address_Workload{Workload: &workload.Workload{
			Uid: host, Name: host, Hostname: host, Services: map[string]*workload.PortList{"ns/" + host: {}},
		}}}
	}
	if err := s.ApplyAddresses(state.Addresses{Set: []*workload.Address{
		add("db.example.com", "240.240.0.1"), add("db.example.com", "240.240.0.1"), endpoint("db.example.com"), add("gone.example.com", "2001:2::1"), endpoint("gone.example.com"),
	}}); err != nil {
		t.Fatal(err)
	}
	var told []string
	r := &Resolver{
		State: s, Pick: zero, Hosts: hosts{"db.example.com": {netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("192.0.2.7")}},
		Resolved: func(from *state.Workload, host string) { told = append(told, from.Name+" "+host) },
	}
	from := &state.Workload{Name: "client", Kin: &state.Kin{Namespace: "ns"}, Place: &state.Place{}}
	for to, want := range map[string]string{
		"240.240.0.1:5432":   "Plaintext 192.0.2.7:5433 service ns/db.example.com, endpoint db.example.com, which has no tunnel", // of the family that was dialled
		"[2001:2::1]:5432":   "Refuse [2001:2::1]:5432 no address of endpoint gone.example.com, host gone.example.com: NXDOMAIN",
		"198.51.100.1:443":   "Passthrough 198.51.100.1:443 198.51.100.1 is neither a service nor a workload of the mesh",
		"240.240.0.1:1":      "Refuse 240.240.0.1:1 no healthy upstream: 240.240.0.1:1: service ns/db.example.com has 1 endpoint(s): 1 without a port for 1",
		"[::ffff:1.2.3.4]:9": "Passthrough 1.2.3.4:9 1.2.3.4 is neither a service nor a workload of the mesh",
	} {
		got := r.Route(t.Context(), nil, from, netip.MustParseAddrPort(to))
		text := got.Kind.String() + " " + got.To.String() + " " + got.Why()
		if text != want {
			t.Errorf("%s: %s, want %s", to, text, want)
		}
	}
	slices.Sort(told)
	if want := []string{"client db.example.com", "client gone.example.com"}; !slices.Equal(told, want) {
		t.Errorf("told of %q, want %q", told, want)
	}
	r.Ask = deaf{}
	if got := r.Route(t.Context(), nil, from, netip.MustParseAddrPort("240.240.0.1:5432")); got.Kind != state.Refuse || got.Why() != "unknown destination: 240.240.0.1:5432: the control plane is away" {
		t.Errorf("asked in vain: %s, %s", got.Kind, got.Why())
	}
}
