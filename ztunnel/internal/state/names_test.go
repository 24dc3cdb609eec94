package state

import (
	"fmt"
	"testing"

	"github.com/ambit-mesh/ambit/api/workload"
)

func TestNamed(t *testing.T) {
	in := func(namespace string, change ...func(*workload.Service)) func(*workload.Service) {
		return func(s *workload.Service) {
			s.Namespace = namespace
			for _, f := range change {
				f(s)
			}
		}
	}
	private := func(s *workload.Service) { s.Visibility = workload.Service_NAMESPACE }
	canonical := func(s *workload.Service) { s.Canonical = true }
	elsewhere := func(s *workload.Service) { s.Addresses[0].Network = "other" }
	block := func(s *workload.Service) { s.Addresses[0].Length = new(uint32(24)) }
	sick := func(w *workload.Workload) { w.Status = workload.WorkloadStatus_UNHEALTHY }
	const head = "head.ns.svc.cluster.local"
	for _, tc := range []struct {
		name, host, from string
		all              []*workload.Address
		want             string
	}{
		{name: "a service's address", host: "web.ns.svc.cluster.local", all: []*workload.Address{svc("web.ns.svc.cluster.local", "10.96.0.1")}, want: "[10.96.0.1] true"},
		{name: "one outside with an address", host: "api.example.com", all: []*workload.Address{svc("api.example.com", "240.240.0.1")}, want: "[240.240.0.1] true"},
		{name: "one outside without is public DNS's", host: "api.example.com", all: []*workload.Address{svc("api.example.com", "")}, want: "[] false"},
		{name: "an address of another network", host: "api.example.com", all: []*workload.Address{svc("api.example.com", "240.240.0.1", elsewhere)}, want: "[] true"},
		{name: "a block is no address", host: "api.example.com", all: []*workload.Address{svc("api.example.com", "10.9.0.0", block)}, want: "[] true"},
		{
			name: "a headless service's healthy endpoints", host: head, want: "[10.0.0.2 10.0.0.3] true",
			all: []*workload.Address{svc(head, ""), wl("b", "10.0.0.2", serves(80, head)), wl("c", "10.0.0.3", serves(80, head)), wl("d", "10.0.0.4", func(w *workload.Workload) { serves(80, head)(w); sick(w) })},
		},
		{name: "one that nobody sees but its own namespace", host: "p.example.com", from: "ns", all: []*workload.Address{svc("p.example.com", "240.240.0.1", in("a", private))}, want: "[] false"},
		{name: "its own namespace does", host: "p.example.com", from: "a", all: []*workload.Address{svc("p.example.com", "240.240.0.1", in("a", private))}, want: "[240.240.0.1] true"},
		{name: "the client's namespace first", host: "x.example.com", from: "b", all: []*workload.Address{svc("x.example.com", "240.240.0.1", in("a", canonical)), svc("x.example.com", "240.240.0.2", in("b"))}, want: "[240.240.0.2] true"},
		{name: "then the canonical one", host: "x.example.com", from: "c", all: []*workload.Address{svc("x.example.com", "240.240.0.1", in("a")), svc("x.example.com", "240.240.0.2", in("b", canonical))}, want: "[240.240.0.2] true"},
		{name: "a workload's own name", host: "vm.example.com", all: []*workload.Address{wl("vm", "10.0.0.9", func(w *workload.Workload) { w.Hostname = "vm.example.com" })}, want: "[10.0.0.9] true"},
		{name: "a name that nobody has", host: "nobody", want: "[] false"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := storeOf(t, 0, tc.all...)
			addrs, ok := s.Named(tc.host, tc.from)
			if got := fmt.Sprint(addrs, ok); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			if err := s.ApplyAddresses(Addresses{Remove: []string{"ns/" + tc.host}}); err != nil {
				t.Fatal(err)
			}
			if svc := s.ServiceOf(tc.host, "ns"); svc != nil && svc.Namespace == "ns" {
				t.Error("a service that is gone is still found by name")
			}
		})
	}
	s := New(Config{Preferred: "c", Pick: func(uint64) uint64 { return 0 }})
	three := []*workload.Address{svc("x.example.com", "240.240.0.1", in("a")), svc("x.example.com", "240.240.0.3", in("c")), svc("x.example.com", "240.240.0.2", in("b", canonical))}
	for n, want := range []string{"", "[240.240.0.1]", "[240.240.0.3]", "[240.240.0.2]"} {
		if n == 0 {
			continue
		}
		if err := s.ApplyAddresses(Addresses{Set: three[:n]}); err != nil {
			t.Fatal(err)
		}
		if addrs, _ := s.Named("x.example.com", "z"); fmt.Sprint(addrs) != want {
			t.Errorf("of %d services: %v, want %s: the canonical one, else that of the preferred namespace, else the first", n, addrs, want)
		}
	}
}
