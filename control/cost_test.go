package control_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// BenchmarkFirstPush measures what a cluster of 1,000 Services and 5,000 pods costs a control plane that starts: until its
// objects are derived, until a proxy has everything, how many bytes that is, and the memory of it all.
func BenchmarkFirstPush(b *testing.B) {
	const services, pods = 1000, 5000
	t := testing.TB(b)
	m := newMemory(t, cluster)
	var all []kinds.Object
	for i := range services {
		found, err := kinds.Decode("service", []byte(fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: ns%d}\nspec: {clusterIP: 10.96.%d.%d, selector: {app: a%d}, ports: [{name: http, port: 80, targetPort: 8080}]}\n", i, i%20, i>>8+1, i&255, i)))
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, found[0].Object)
	}
	for i := range pods {
		app := i % services
		found, err := kinds.Decode("pod", []byte(fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: p%d, namespace: ns%d, uid: u%d, labels: {app: a%d, version: v1, pod-template-hash: abc}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n%d, serviceAccountName: sa%d, containers: [{name: c, image: "registry.example/app:v1", ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.%d.%d.%d, conditions: [{type: Ready, status: "True"}]}
`, i, app%20, i, app, i%100, app, 100+(i>>16), i>>8&255, i&255)))
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, found[0].Object)
	}
	for _, o := range all {
		m.all[o.GetObjectKind().GroupVersionKind().Kind+"/"+o.GetNamespace()+"/"+o.GetName()] = o
	}
	var derived, pushed time.Duration
	bytes := 0
	for b.Loop() {
		again := m.again()
		begin := time.Now()
		v := startVirtual(t, again, nil)
		for v.cluster.roots("istio-system") == "" {
			time.Sleep(time.Millisecond)
		}
		derived += time.Since(begin)
		s := v.subscribe("z1", ztunnelNode)
		for len(s.names(mesh.TypeAddress)) < services+pods {
			time.Sleep(time.Millisecond)
		}
		pushed += time.Since(begin)
		s.mu.Lock()
		bytes = s.bytes[mesh.TypeAddress]
		s.mu.Unlock()
		b.ReportMetric(rss(b), "MiB-RSS")
		s.end()
		v.stop()
	}
	b.ReportMetric(float64(derived.Milliseconds())/float64(b.N), "ms-to-derive")
	b.ReportMetric(float64(pushed.Milliseconds())/float64(b.N), "ms-to-first-push")
	b.ReportMetric(float64(bytes)/(1<<10), "KiB-sent")
}

// rss is the memory of this process that is in use, in MiB.
func rss(b *testing.B) float64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kb) / 1024
		}
	}
	return 0
}
