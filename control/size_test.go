package control

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/push"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/mesh"
)

// BenchmarkPods measures what pods cost: heap for each thousand, all derived resources included, and how long a change
// of one pod takes to go through.
func BenchmarkPods(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			before := heap()
			st := source.NewStore()
			out := push.New(st, ambient.Config{ClusterID: mesh.ClusterID, TrustDomain: mesh.TrustDomain, ClusterDomain: mesh.ClusterDomain, RootNamespace: mesh.SystemNamespace}, nil)
			begin := time.Now()
			for i := range n / 10 {
				st.Apply(objects(b, "service", fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: ns%d}\nspec: {clusterIP: 10.%d.%d.1, selector: {app: a%d}, ports: [{name: http, port: 80}]}\n", i, i%20, i>>8, i&255, i)), nil)
			}
			for i := range n {
				st.Apply(objects(b, "pod", onePod(i, n, "True")), nil)
			}
			loaded, size := time.Since(begin), heap()-before
			i := 0
			for b.Loop() {
				ready := []string{"False", "True"}[i&1]
				b.StopTimer()
				o := objects(b, "pod", onePod(0, n, ready))
				b.StartTimer()
				st.Apply(o, nil)
				i++
			}
			b.ReportMetric(float64(loaded.Milliseconds()), "ms-to-load")
			b.ReportMetric(float64(size)/float64(n)*1000/(1<<20), "MiB/1k-pods")
			runtime.KeepAlive(out)
		})
	}
}

func onePod(i, n int, ready string) string {
	app := i % (n / 10)
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: p%d, namespace: ns%d, uid: u%d, labels: {app: a%d, version: v1, pod-template-hash: abc}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n%d, serviceAccountName: sa%d, containers: [{name: c, image: "registry.example/app:v1", ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.%d.%d.%d, conditions: [{type: Ready, status: "%s"}]}
`, i, app%20, i, app, i%100, app, 100+(i>>16), i>>8&255, i&255, ready)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
