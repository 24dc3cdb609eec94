package state

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ambit-mesh/ambit/api/workload"
)

// A large mesh: each service has five endpoints.
const (
	manyServices = 10_000
	manyPods     = 50_000
)

func bigService(i int) *workload.Address {
	host := fmt.Sprintf("svc-%d.ns-%d.svc.cluster.local", i, i%100)
	return &workload.Address{Type: &workload.Address_Service{Service: &workload.Service{
		Name: fmt.Sprintf("svc-%d", i), Namespace: fmt.Sprintf("ns-%d", i%100), Hostname: host,
		Addresses: []*workload.NetworkAddress{{Address: []byte{10, 96, byte(i >> 8), byte(i)}}},
		Ports:     []*workload.Port{{ServicePort: 80, TargetPort: 8080}, {ServicePort: 9090, TargetPort: 9090}},
		LoadBalancing: &workload.LoadBalancing{
			Mode:              workload.LoadBalancing_FAILOVER,
			RoutingPreference: []Scope{workload.LoadBalancing_NETWORK, workload.LoadBalancing_REGION, workload.LoadBalancing_ZONE},
		},
	}}}
}

func bigPod(i, services int) *workload.Address {
	svc := i % services
	ns := fmt.Sprintf("ns-%d", svc%100)
	name := fmt.Sprintf("svc-%d-7d4b9c6f5-%05x", svc, i)
	return &workload.Address{Type: &workload.Address_Workload{Workload: &workload.Workload{
		Uid: "Kubernetes//Pod/" + ns + "/" + name, Name: name, Namespace: ns, ServiceAccount: fmt.Sprintf("svc-%d", svc),
		Addresses: [][]byte{{10, 244 + byte(i>>16), byte(i >> 8), byte(i)}}, TunnelProtocol: workload.TunnelProtocol_HBONE,
		Node: fmt.Sprintf("node-%d", i%500), CanonicalName: fmt.Sprintf("svc-%d", svc), CanonicalRevision: "latest", WorkloadName: fmt.Sprintf("svc-%d", svc),
		ClusterId: "Kubernetes", Locality: &workload.Locality{Region: "region", Zone: fmt.Sprintf("zone-%d", i%3)}, Capacity: wrapperspb.UInt32(1),
		Services: map[string]*workload.PortList{fmt.Sprintf("%s/svc-%d.%s.svc.cluster.local", ns, svc, ns): {Ports: []*workload.Port{{ServicePort: 80, TargetPort: 8080}, {ServicePort: 9090, TargetPort: 9090}}}},
	}}}
}

// decoded is what comes from the wire: nothing of it is shared.
func decoded(t testing.TB, a *workload.Address) *workload.Address {
	b, err := proto.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	out := &workload.Address{}
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func bigStore(t testing.TB, services, pods int) *Store {
	t.Helper()
	s := New(Config{TrustDomain: "cluster.local", Pick: rand.New(rand.NewPCG(1, 2)).Uint64N})
	for i := range services {
		if err := s.ApplyAddresses(Addresses{Set: []*workload.Address{decoded(t, bigService(i))}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range pods {
		if err := s.ApplyAddresses(Addresses{Set: []*workload.Address{decoded(t, bigPod(i, services))}}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkRoute(b *testing.B) {
	before := heap()
	s := bigStore(b, manyServices, manyPods)
	b.ReportMetric(float64(heap()-before)/(manyPods+manyServices), "heap-B/resource")
	from := s.Workload(netip.AddrFrom4([4]byte{10, 244, 0, 1}))
	for _, bb := range []struct {
		name string
		to   func(i int) netip.AddrPort
	}{
		{"service", func(i int) netip.AddrPort {
			i %= manyServices
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80)
		}},
		{"pod", func(i int) netip.AddrPort {
			i %= manyPods
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244 + byte(i>>16), byte(i >> 8), byte(i)}), 8080)
		}},
		{"outside", func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 443)
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if r := s.Route(from, bb.to(i*7919)); r.Kind == Refuse {
					b.Fatal(r.Why())
				}
			}
		})
	}
}

// A mesh's size is what a node pays for it: the budget of a workload, with its share of its service.
func TestMemoryOfALargeMesh(t *testing.T) {
	before := heap()
	s := bigStore(t, manyServices/5, manyPods/5)
	each := (heap() - before) / (manyPods / 5)
	t.Logf("%d bytes a workload, its share of its service included", each)
	if each > 750 {
		t.Errorf("a workload takes %d bytes, want at most 750", each)
	}
	route := func() {
		s.Route(s.index.workloads["Kubernetes//Pod/ns-1/svc-1-7d4b9c6f5-00001"], netip.MustParseAddrPort("10.96.0.1:80"))
	}
	if n := testing.AllocsPerRun(100, route); n != 0 {
		t.Errorf("a route makes %v allocations", n)
	}
}

// RS-13: a thousand updates a second take little of a core. What is counted is CPU time of this process.
func TestChurn(t *testing.T) { // RS-13
	s := bigStore(t, manyServices/5, manyPods/5)
	const updates = 10_000
	wire := make([][]byte, updates)
	for i := range wire {
		a := bigPod(i, manyServices/5)
		a.GetWorkload().Status = workload.WorkloadStatus(i & 1)
		b, err := proto.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		wire[i] = b
	}
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began := cpu()
	for _, b := range wire {
		a := &workload.Address{}
		if err := proto.Unmarshal(b, a); err != nil {
			t.Fatal(err)
		}
		if err := s.ApplyAddresses(Addresses{Set: []*workload.Address{a}}); err != nil {
			t.Fatal(err)
		}
	}
	each := (cpu() - began) / updates
	t.Logf("%s of CPU an update: %.1f%% of a core at 1000 a second", each, float64(each)/float64(time.Millisecond)*100)
	if each > 500*time.Microsecond {
		t.Errorf("an update takes %s of CPU: a thousand a second more than half a core", each)
	}
}
