package budget

import (
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/internal/testkit/localtest"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/test/lab"
)

func TestMain(m *testing.M) { localtest.Main(m) }

// calm is how long after a burst a program counts as idle again.
const calm = 10 * time.Second

// TestLiveMesh measures what is resident on the nodes of a mesh that works: with pods and certificates, and some seconds
// after a burst of connections and bytes.
func TestLiveMesh(t *testing.T) {
	localtest.Needed(t)
	ctx := t.Context()
	l, err := lab.Start(ctx, lab.Config{Nodes: 3, Bin: os.Getenv("AMBIT_BIN"), Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	client, server := lab.Pod{Namespace: "live", Name: "client", Node: "node-2"}, lab.Pod{Namespace: "live", Name: "server", Node: "node-3"}
	if err := l.Apply(ctx, lab.Namespace("live", true)); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(ctx, client, server); err != nil {
		t.Fatal(err)
	}
	programs := nodePrograms(t, l)
	for _, when := range []struct {
		measure string
		burst   [][]string
	}{
		{"resident", [][]string{{"connect", "-count=20"}}},
		{"after-burst", [][]string{{"connect", "-conns=16", "-count=2000"}, {"bulk", "-conns=8", "-bytes=268435456"}, {"bulk", "-down", "-conns=8", "-bytes=268435456"}}},
	} {
		for _, b := range when.burst {
			var ignored any
			if err := l.Exec(ctx, client, &ignored, append([]string{lab.Load, b[0], "-to", "server.live:9000"}, b[1:]...)...); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(calm) // what is measured is what is left after it
		for _, p := range programs {
			got, err := p.process.Resident()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s of %s on %s: %.1f MiB", when.measure, p.name, p.node, float64(got)/(1<<20))
			if most := budget(t, p.name, when.measure); got > most {
				t.Errorf("%s of %s on %s: %d bytes, budget %d", when.measure, p.name, p.node, got, most)
			}
		}
	}
}

type program struct {
	name, node string
	process    lab.Process
}

// nodePrograms are those of the nodes that work.
func nodePrograms(t *testing.T, l *lab.Lab) (all []program) {
	t.Helper()
	k, _ := kinds.Find("pods")
	for selector, is := range map[string]struct{ name, container string }{
		"app=ztunnel":            {"ztunnel", "istio-proxy"},
		"k8s-app=istio-cni-node": {"ambit-node", "install-cni"},
	} {
		pods, err := l.List(t.Context(), k, mesh.SystemNamespace, selector)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range pods {
			pod := o.(*corev1.Pod)
			if pod.Spec.NodeName == "node-1" {
				continue
			}
			p, err := l.Process(t.Context(), pod.Namespace, pod.Name, is.container)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, program{is.name, pod.Spec.NodeName, p})
		}
	}
	return all
}
