package ztunnel

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// TestDumpIsIstios compares with what Istio's ztunnel (afd0009e) shows of the same resources, key by key.
func TestDumpIsIstios(t *testing.T) {
	s := state.New(state.Config{TrustDomain: "cluster.local"})
	port := []*workload.Port{{ServicePort: 80, TargetPort: 8080}}
	if err := s.ApplyAddresses(state.Addresses{Set: []*workload.Address{
		{Type: &workload.Address_Workload{Workload: &workload.Workload{
			Uid: "Kubernetes//Pod/inter/a", Name: "a", Namespace: "inter", Addresses: [][]byte{{10, 244, 2, 5}}, ServiceAccount: "ours", Node: "node-2",
			TunnelProtocol: workload.TunnelProtocol_HBONE, WorkloadName: "ours", WorkloadType: workload.WorkloadType_DEPLOYMENT,
			CanonicalName: "ours", CanonicalRevision: "latest", ClusterId: "Kubernetes",
			Services: map[string]*workload.PortList{"inter/ours.inter.svc.cluster.local": {Ports: port}},
		}}},
		{Type: &workload.Address_Service{Service: &workload.Service{
			Name: "ours", Namespace: "inter", Hostname: "ours.inter.svc.cluster.local", Ports: port, Canonical: true, IpFamilies: workload.IPFamilies_IPV4_ONLY,
			Addresses: []*workload.NetworkAddress{{Address: []byte{10, 96, 1, 2}}},
			LoadBalancing: &workload.LoadBalancing{
				Mode: workload.LoadBalancing_FAILOVER, RoutingPreference: []workload.LoadBalancing_Scope{workload.LoadBalancing_NETWORK, workload.LoadBalancing_ZONE},
			},
		}}},
	}}); err != nil {
		t.Fatal(err)
	}
	snapshot := s.Snapshot()
	same(t, dumpWorkload(snapshot.Workloads[0]), `{
		"canonicalName": "ours", "canonicalRevision": "latest", "capacity": 1, "clusterId": "Kubernetes", "name": "a", "namespace": "inter",
		"networkMode": "Standard", "node": "node-2", "protocol": "HBONE", "serviceAccount": "ours",
		"services": ["inter/ours.inter.svc.cluster.local"], "status": "Healthy", "trustDomain": "cluster.local",
		"uid": "Kubernetes//Pod/inter/a", "workloadIps": ["10.244.2.5"], "workloadName": "ours", "workloadType": "deployment"}`)
	svc := snapshot.Services[0]
	same(t, dumpService(svc, snapshot.Endpoints[svc.Key()]), `{
		"canonical": true, "endpoints": {"Kubernetes//Pod/inter/a": {"port": {"80": 8080}, "status": "Healthy", "workloadUid": "Kubernetes//Pod/inter/a"}},
		"hostname": "ours.inter.svc.cluster.local", "ipFamilies": "IPv4", "name": "ours", "namespace": "inter", "ports": {"80": 8080},
		"loadBalancer": {"healthPolicy": "OnlyHealthy", "mode": "Failover", "routingPreferences": ["Network", "Zone"]},
		"subjectAltNames": [], "vips": ["/10.96.1.2"], "visibility": "Public"}`)
}

// TestCertificatesAreReadByIstioctl: the base64 of a PEM block, and the serial number in decimal, which istioctl prints in
// hexadecimal.
func TestCertificatesAreReadByIstioctl(t *testing.T) {
	root := fakeca.New(t).Root()
	c := dumpCertificate(root)
	var back struct {
		PEM          []byte
		SerialNumber string
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(back.PEM); block == nil || string(block.Bytes) != string(root.Raw) {
		t.Errorf("pem is %q", back.PEM)
	}
	if want := root.SerialNumber.String(); back.SerialNumber != want {
		t.Errorf("serial number %s, want %s", back.SerialNumber, want)
	}
}

func same(t *testing.T, v any, want string) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var got, wanted any
	for text, to := range map[string]*any{string(b): &got, want: &wanted} {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(wanted, got); d != "" {
		t.Errorf("-Istio's +ours:\n%s", d)
	}
}

// peak counts what is written, and how much memory is in use meanwhile.
type peak struct {
	written int
	heap    uint64
}

func (p *peak) Write(b []byte) (int, error) {
	if p.written>>20 != (p.written+len(b))>>20 { // once a MiB
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		p.heap = max(p.heap, m.HeapAlloc)
	}
	p.written += len(b)
	return len(b), nil
}

func TestDumpOfALargeMeshTakesLittleMemory(t *testing.T) {
	z := explaining(t)
	z.proxies = nil
	const n = 20_000
	var all []*workload.Address
	for i := range n {
		all = append(all, &workload.Address{Type: &workload.Address_Workload{Workload: &workload.Workload{
			Uid: fmt.Sprint("k//Pod/a/pod-", i), Name: fmt.Sprint("pod-", i), Namespace: "a", Addresses: [][]byte{{10, 1, byte(i >> 8), byte(i)}},
		}}})
	}
	if err := z.state.ApplyAddresses(state.Addresses{Set: all}); err != nil {
		t.Fatal(err)
	}
	all = nil //nolint:ineffassign,wastedassign // their memory is not the dump's
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	p := &peak{}
	if err := z.WriteDump(p, "test"); err != nil {
		t.Fatal(err)
	}
	grown := int64(p.heap) - int64(before.HeapAlloc)
	t.Logf("%d bytes written, %d more in use meanwhile", p.written, grown)
	if p.written < 5<<20 || grown > 2<<20 {
		t.Errorf("a dump of %d bytes takes %d bytes of memory, want at most 2 MiB", p.written, grown)
	}
}

func TestDumpEndsWithItsReader(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	z := explaining(t)
	z.proxies = nil
	if err := z.WriteDump(w, "test"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}
