package interop

import (
	"context"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/test/lab"
	"github.com/ambit-mesh/ambit/test/lab/figures"
)

// settles waits until both ways work again.
func (w *world) settles(t *testing.T) {
	t.Helper()
	if err := w.Carried(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, y := range w.ways() {
		w.becomes(t, true, y.client, y.server.Name+".inter:9000")
	}
}

// restarts: whatever restarts, the others go on with what comes after it.
func restarts(t *testing.T, w *world) {
	for name, restart := range map[string]func(t *testing.T) []string{
		"theirs": func(t *testing.T) []string {
			return []string{"delete", "pod", "-n", mesh.SystemNamespace, w.ztunnel(t, theirNode)}
		},
		"ours": func(t *testing.T) []string {
			return []string{"delete", "pod", "-n", mesh.SystemNamespace, w.ztunnel(t, ourNode)}
		},
		"the control plane": func(*testing.T) []string {
			return []string{"rollout", "restart", "-n", mesh.SystemNamespace, "deploy/istiod"}
		},
		"the node agents": func(*testing.T) []string {
			return []string{"rollout", "restart", "-n", mesh.SystemNamespace, "ds/istio-cni-node"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := w.Local(t.Context(), restart(t)...); err != nil {
				t.Fatal(err)
			}
			w.settles(t)
			late := lab.Pod{Namespace: "inter", Name: "after-restart", Node: theirNode}
			if err := w.Start(t.Context(), late); err != nil {
				t.Fatal(err)
			}
			w.becomes(t, true, w.ours, late.Name+":9000")
			if _, err := w.Local(t.Context(), "delete", "pod", "-n", "inter", late.Name); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func (w *world) ztunnel(t *testing.T, node string) string {
	t.Helper()
	name, err := w.Ztunnel(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// takeOver: a node's pods are handed from Istio's ztunnel to ours and back while they live, through our agent.
func takeOver(t *testing.T, w *world) {
	for _, theirs := range []bool{false, true} {
		name := "to ours"
		if theirs {
			name = "to theirs"
		}
		t.Run(name, func(t *testing.T) {
			if err := w.Carry(t.Context(), theirNode, theirs); err != nil {
				t.Fatal(err)
			}
			w.settles(t)
			within(t, 10*time.Second, "the node's new ztunnel holds the pod", func(context.Context) bool {
				return len(w.dump(t, theirNode).held(w.theirs.Name)) == 1
			})
			var b figures.Bulk
			if err := w.Exec(t.Context(), w.ours, &b, lab.Load, "bulk", "-verify", "-bytes=16777216", "-to", "theirs.inter:9000"); err != nil {
				t.Fatal(err)
			}
		})
	}
}
