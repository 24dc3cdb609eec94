package routing

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/delta"
)

var update = flag.Bool("update", false, "rewrite the results in testdata")

// world is a control plane's sets that a test fills.
type world struct {
	graph     *collection.Graph
	pods      *collection.Set[*corev1.Pod]
	services  *collection.Set[*corev1.Service]
	secrets   *collection.Set[*corev1.Secret]
	gateways  *collection.Set[*networkingv1.Gateway]
	virtual   *collection.Set[*networkingv1.VirtualService]
	rules     *collection.Set[*networkingv1.DestinationRule]
	spaces    *collection.Set[*corev1.Namespace]
	kube      *collection.Set[*gatewayv1.Gateway]
	http      *collection.Set[*gatewayv1.HTTPRoute]
	grpc      *collection.Set[*gatewayv1.GRPCRoute]
	tls       *collection.Set[*gatewayv1.TLSRoute]
	tcp       *collection.Set[*gatewayv1.TCPRoute]
	grants    *collection.Set[*gatewayv1.ReferenceGrant]
	mesh      *collection.Set[*workload.Service]
	workloads *collection.Set[*workload.Workload]
	out       Outputs
}

func objects[T metav1.Object](g *collection.Graph) *collection.Set[T] {
	return collection.NewSet(g, func(o T) string { return strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/") }, func(a, b T) bool { return any(a) == any(b) })
}

func newWorld() *world {
	g := collection.NewGraph()
	w := &world{
		graph: g, pods: objects[*corev1.Pod](g), services: objects[*corev1.Service](g), secrets: objects[*corev1.Secret](g),
		gateways: objects[*networkingv1.Gateway](g), virtual: objects[*networkingv1.VirtualService](g), rules: objects[*networkingv1.DestinationRule](g),
		spaces: objects[*corev1.Namespace](g), kube: objects[*gatewayv1.Gateway](g), http: objects[*gatewayv1.HTTPRoute](g), grpc: objects[*gatewayv1.GRPCRoute](g),
		tls: objects[*gatewayv1.TLSRoute](g), tcp: objects[*gatewayv1.TCPRoute](g), grants: objects[*gatewayv1.ReferenceGrant](g),
		mesh: collection.NewSet(g, func(s *workload.Service) string { return s.GetNamespace() + "/" + s.GetHostname() },
			func(a, b *workload.Service) bool { return proto.Equal(a, b) }),
		workloads: collection.NewSet(g, (*workload.Workload).GetUid, func(a, b *workload.Workload) bool { return proto.Equal(a, b) }),
	}
	w.out = New(Inputs{
		Pods: w.pods, KubeServices: w.services, Secrets: w.secrets, Gateways: w.gateways, VirtualServices: w.virtual,
		Namespaces: w.spaces, KubeGateways: w.kube, HTTPRoutes: w.http, GRPCRoutes: w.grpc, TLSRoutes: w.tls, TCPRoutes: w.tcp, ReferenceGrants: w.grants,
		DestinationRules: w.rules, Services: w.mesh, Workloads: w.workloads,
	})
	w.spaces.MarkSynced()
	w.kube.MarkSynced()
	w.http.MarkSynced()
	w.grpc.MarkSynced()
	w.tls.MarkSynced()
	w.tcp.MarkSynced()
	w.grants.MarkSynced()
	w.pods.MarkSynced()
	w.services.MarkSynced()
	w.secrets.MarkSynced()
	w.gateways.MarkSynced()
	w.virtual.MarkSynced()
	w.rules.MarkSynced()
	w.mesh.MarkSynced()
	w.workloads.MarkSynced()
	return w
}

// load puts YAML objects into the sets. Pods with an address are workloads too, of the services that select them.
func (w *world) load(t *testing.T, data []byte) {
	t.Helper()
	located, err := kinds.Decode("objects.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	var services []*corev1.Service
	var pods []*corev1.Pod
	for _, l := range located {
		if _, cluster := l.Object.(*corev1.Namespace); !cluster && l.Object.GetNamespace() == "" {
			l.Object.SetNamespace("default")
		}
		switch o := l.Object.(type) {
		case *corev1.Pod:
			w.pods.Put(o)
			pods = append(pods, o)
		case *corev1.Service:
			w.services.Put(o)
			services = append(services, o)
		case *corev1.Secret:
			w.secrets.Put(o)
		case *networkingv1.Gateway:
			w.gateways.Put(o)
		case *networkingv1.VirtualService:
			w.virtual.Put(o)
		case *networkingv1.DestinationRule:
			w.rules.Put(o)
		case *corev1.Namespace:
			w.spaces.Put(o)
		case *gatewayv1.Gateway:
			w.kube.Put(o)
		case *gatewayv1.HTTPRoute:
			w.http.Put(o)
		case *gatewayv1.GRPCRoute:
			w.grpc.Put(o)
		case *gatewayv1.TLSRoute:
			w.tls.Put(o)
		case *gatewayv1.TCPRoute:
			w.tcp.Put(o)
		case *gatewayv1.ReferenceGrant:
			w.grants.Put(o)
		default:
			t.Fatalf("unexpected %T", o)
		}
	}
	for _, s := range services {
		m := &workload.Service{Name: s.Name, Namespace: s.Namespace, Hostname: s.Name + "." + s.Namespace + ".svc.cluster.local"}
		for _, p := range s.Spec.Ports {
			port := &workload.Port{ServicePort: uint32(p.Port), TargetPort: uint32(p.TargetPort.IntVal)}
			if port.TargetPort == 0 && p.TargetPort.StrVal == "" {
				port.TargetPort = port.ServicePort
			}
			if strings.HasPrefix(p.Name, "grpc") {
				port.AppProtocol = workload.AppProtocol_GRPC
			}
			m.Ports = append(m.Ports, port)
		}
		w.mesh.Put(m)
	}
	for _, p := range pods {
		if p.Status.PodIP != "" {
			w.workloads.Put(workloadOf(p, services))
		}
	}
}

func workloadOf(p *corev1.Pod, services []*corev1.Service) *workload.Workload {
	m := &workload.Workload{
		Uid: "Kubernetes//Pod/" + p.Namespace + "/" + p.Name, Name: p.Name, Namespace: p.Namespace, ServiceAccount: p.Spec.ServiceAccountName,
		Addresses: [][]byte{addressBytes(p.Status.PodIP)}, Services: map[string]*workload.PortList{}, WorkloadName: p.Name,
	}
	if p.Annotations[mesh.AnnotationRedirection] == mesh.RedirectionEnabled {
		m.TunnelProtocol = workload.TunnelProtocol_HBONE
	}
	if z := p.Labels["topology.kubernetes.io/zone"]; z != "" { // a node's in a cluster
		m.Locality = &workload.Locality{Zone: z}
	}
	if p.Status.Phase == corev1.PodPending {
		m.Status = workload.WorkloadStatus_UNHEALTHY
	}
	for _, s := range services {
		if s.Namespace == p.Namespace && len(s.Spec.Selector) > 0 && covers(s.Spec.Selector, p.Labels) {
			list := &workload.PortList{}
			for _, port := range s.Spec.Ports {
				if n, ok := targetPort(p, port); ok {
					list.Ports = append(list.Ports, &workload.Port{ServicePort: uint32(port.Port), TargetPort: n})
				}
			}
			m.Services[s.Namespace+"/"+s.Name+"."+s.Namespace+".svc.cluster.local"] = list
		}
	}
	return m
}

func addressBytes(s string) []byte {
	var out []byte
	n := 0
	for _, c := range s + "." {
		if c == '.' {
			out, n = append(out, byte(n)), 0
			continue
		}
		n = n*10 + int(c-'0')
	}
	return out
}

// dump writes resources as YAML, without the proxy that each name begins with.
func (w *world) dump(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, url := range []string{mesh.TypeListener, mesh.TypeRoute, mesh.TypeBackend, mesh.TypeSecret} {
		all := maps.Collect(w.out.Resources[url].All())
		for _, name := range slices.Sorted(maps.Keys(all)) {
			m, err := all[name].Body.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			if s, ok := m.(*l7.Secret); ok {
				first := func(b []byte) []byte { line, _, _ := bytes.Cut(b, []byte("\n")); return line }
				s.CertificateChain, s.PrivateKey, s.CaCertificates = first(s.CertificateChain), first(s.PrivateKey), first(s.CaCertificates)
			}
			j, err := protojson.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			y, err := yaml.JSONToYAML(j)
			if err != nil {
				t.Fatal(err)
			}
			b.WriteString("# " + strings.TrimPrefix(url, "type.googleapis.com/ambit.l7.") + "\n" + string(y))
		}
	}
	plans := maps.Collect(w.out.Plans.All())
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		for _, p := range plans[name].Problems {
			b.WriteString("# problem: " + p.Object + ": " + p.Why + "\n")
		}
	}
	w.judge(&b)
	return b.String()
}

// judge writes what is said of objects of the Gateway API.
func (w *world) judge(b *strings.Builder) {
	say := func(what string, vs []Verdict) {
		for _, v := range vs {
			fmt.Fprintf(b, "# %s: %s %v %s %s\n", what, v.Type, v.True, v.Reason, v.Message)
		}
	}
	kind := collection.Kind[string]{Key: func(s string) string { return s }, Equal: func(x, y string) bool { return x == y }}
	done := func(name string, s KubeStatus, ours bool) (string, bool) {
		if !ours {
			fmt.Fprintf(b, "# %s: not ours\n", name)
		}
		say(name, s.Verdicts)
		for _, l := range s.Listeners {
			say(fmt.Sprintf("%s listener %s (%d attached)", name, l.Name, l.Attached), l.Verdicts)
		}
		for _, p := range s.Parents {
			say(fmt.Sprintf("%s at %s", name, p.Ref.Name), p.Verdicts)
		}
		return name, true
	}
	collection.Map(w.kube, kind, func(r *collection.Read, o *gatewayv1.Gateway) (string, bool) {
		s, ours := w.out.Judge.Gateway(r, o)
		return done("Gateway "+o.Name, s, ours)
	})
	collection.Map(w.http, kind, func(r *collection.Read, o *gatewayv1.HTTPRoute) (string, bool) {
		s, ours := w.out.Judge.HTTPRoute(r, o)
		return done("HTTPRoute "+o.Name, s, ours)
	})
	collection.Map(w.grpc, kind, func(r *collection.Read, o *gatewayv1.GRPCRoute) (string, bool) {
		s, ours := w.out.Judge.GRPCRoute(r, o)
		return done("GRPCRoute "+o.Name, s, ours)
	})
	collection.Map(w.tls, kind, func(r *collection.Read, o *gatewayv1.TLSRoute) (string, bool) {
		s, ours := w.out.Judge.TLSRoute(r, o)
		return done("TLSRoute "+o.Name, s, ours)
	})
	collection.Map(w.tcp, kind, func(r *collection.Read, o *gatewayv1.TCPRoute) (string, bool) {
		s, ours := w.out.Judge.TCPRoute(r, o)
		return done("TCPRoute "+o.Name, s, ours)
	})
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld()
			want := -1
			for i, f := range a.Files {
				switch f.Name {
				case "objects.yaml":
					w.load(t, f.Data)
				case "want.yaml":
					want = i
				default:
					t.Fatalf("unknown section %s", f.Name)
				}
			}
			got := w.dump(t)
			if *update {
				if want < 0 {
					a.Files = append(a.Files, txtar.File{Name: "want.yaml"})
					want = len(a.Files) - 1
				}
				a.Files[want].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want < 0 {
				t.Fatal("no section want.yaml; run with -update")
			}
			if diff := cmp.Diff(string(a.Files[want].Data), got); diff != "" {
				t.Errorf("resources differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResourcesAreVisibleToTheirProxyAlone(t *testing.T) {
	const name = "Pod/istio-system/gw/gw-1/cert"
	for _, c := range []struct {
		ns, sa, pod string
		want        bool
	}{
		{"istio-system", "gw", "gw-1", true},
		{"istio-system", "other", "gw-1", false},
		{"istio-system", "gw", "gw-2", false},
		{"istio-system", "gw", "gw", false},
		{"default", "gw", "gw-1", false},
		{"istio-system", "gw", "", false},
	} {
		if got := Visible(c.ns, c.sa, c.pod, name); got != c.want {
			t.Errorf("Visible(%q, %q, %q) = %v, want %v", c.ns, c.sa, c.pod, got, c.want)
		}
	}
}

func TestEnrolmentChangesTheBackendAlone(t *testing.T) {
	a, err := txtar.ParseFile("testdata/bookinfo.txtar")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	w.load(t, a.Files[0].Data)
	changed := map[string][]string{}
	for url, c := range w.out.Resources {
		first := true
		stop := c.Watch(func(es []collection.Event[delta.Resource]) {
			if first {
				first = false
				return
			}
			for _, e := range es {
				changed[url] = append(changed[url], e.Key)
			}
		})
		defer stop()
	}
	old, ok := w.workloads.Get("Kubernetes//Pod/default/productpage-v1-1")
	if !ok {
		t.Fatal("no such workload")
	}
	enrolled := proto.CloneOf(old)
	enrolled.TunnelProtocol = workload.TunnelProtocol_HBONE
	w.workloads.Put(enrolled)
	want := map[string][]string{mesh.TypeBackend: {"Pod/istio-system/istio-ingressgateway-service-account/istio-ingressgateway-1/default/productpage.default.svc.cluster.local:9080"}}
	if diff := cmp.Diff(want, changed); diff != "" {
		t.Errorf("changed resources (-want +got):\n%s", diff)
	}
}
