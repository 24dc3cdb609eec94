package analyze_test

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/cli/internal/analyze"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// TestPartsOfTheMeshThatAreAway: whoever asks about their pods is told that the mesh below them does not run.
func TestPartsOfTheMeshThatAreAway(t *testing.T) {
	const workloads = `
{apiVersion: apps/v1, kind: Deployment, metadata: {name: istiod, namespace: istio-system}, spec: {selector: {matchLabels: {app: istiod}}, template: {metadata: {labels: {app: istiod}}, spec: {containers: [{name: c, image: i}]}}}}
---
{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: ztunnel, namespace: istio-system}, spec: {selector: {matchLabels: {app: ztunnel}}, template: {metadata: {labels: {app: ztunnel}}, spec: {containers: [{name: c, image: i}]}}}}
---
{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: istio-cni-node, namespace: istio-system}, spec: {selector: {matchLabels: {k8s-app: istio-cni-node}}, template: {metadata: {labels: {k8s-app: istio-cni-node}}, spec: {containers: [{name: c, image: i}]}}}}
---
`
	pod := func(label, name, node, ready string) string {
		key, value, _ := strings.Cut(label, "=")
		return `{apiVersion: v1, kind: Pod, metadata: {name: ` + name + `, namespace: istio-system, labels: {` + key + `: ` + value + `}}, spec: {nodeName: ` + node +
			`, containers: [{name: c, image: i}]}, status: {phase: Running, conditions: [{type: Ready, status: "` + ready + "\"}]}}\n---\n"
	}
	const app = `{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: a, annotations: {ambient.istio.io/redirection: enabled}}, spec: {nodeName: n1, containers: [{name: c, image: i}]}, status: {phase: Running}}
`
	istiod, z1, z2, c1 := pod("app=istiod", "istiod-1", "n2", "True"), pod("app=ztunnel", "z1", "n1", "True"), pod("app=ztunnel", "z2", "n2", "True"), pod("k8s-app=istio-cni-node", "c1", "n1", "True")
	for _, c := range []struct {
		name, objects string
		want          []string
	}{
		{"all is well", istiod + z1 + z2 + c1 + app, nil},
		{"no pods in the mesh: nobody misses it", pod("app=ztunnel", "z1", "n1", "False"), nil},
		{"the control plane is not ready", pod("app=istiod", "istiod-1", "n2", "False") + z1 + c1 + app, []string{"Error [AMB0011] (Deployment istiod.istio-system)"}},
		{"a ztunnel of a node with pods of the mesh", istiod + pod("app=ztunnel", "z1", "n1", "False") + z2 + c1 + app, []string{"Error [AMB0012] (DaemonSet ztunnel.istio-system) No ztunnel is ready on n1: pods of the mesh there (1)"}},
		{"a ztunnel of a node without", istiod + z1 + pod("app=ztunnel", "z2", "n2", "False") + c1 + app, nil},
		{"the node agent", istiod + z1 + app, []string{"Warning [AMB0013] (DaemonSet istio-cni-node.istio-system) No node agent is ready on n1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := messages(t, workloads+c.objects, true)
			if strings.Count(got, "[AMB001") != len(c.want) {
				t.Errorf("want %d findings:\n%s", len(c.want), got)
			}
			for _, w := range c.want {
				if !strings.Contains(got, w) {
					t.Errorf("want %q in\n%s", w, got)
				}
			}
		})
	}
}

// TestTrustDomainIsTheMeshs: principals are judged by the trust domain that the mesh has, and not where nobody may say it.
func TestTrustDomainIsTheMeshs(t *testing.T) {
	found, err := kinds.Decode("t.yaml", []byte(`
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: a}, spec: {rules: [{from: [{source: {principals: [corp.example/ns/a/sa/default]}}]}]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		in   analyze.Input
		told bool
	}{
		{"another", analyze.Input{}, true},
		{"its own", analyze.Input{TrustDomain: "corp.example"}, false},
		{"nobody may say which", analyze.Input{Unseen: []string{"ConfigMap"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.in.Objects = found
			told := false
			for _, m := range analyze.Run(c.in) {
				told = told || m.Code == "AMB0003"
			}
			if told != c.told {
				t.Errorf("told: %v", told)
			}
		})
	}
}
