package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/samples/apps/load"
)

// withoutAgent: a node has no agent's pod any more, for longer than the API server remembers the token of one. What is outside the mesh
// starts there within seconds, a pod of the mesh waits, and no connection is lost (CN-01).
func (m *crowd) withoutAgent(t *testing.T) {
	plain := m.Namespace(t, "plain")
	l := m.offer(t, "rate=50&long=10")
	away := fmt.Sprintf(`{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"NotIn","values":[%q]}]}]}}}`, m.two)
	agents := func(affinity string) {
		m.Kubectl(t, "patch", "-n", "istio-system", "ds/istio-cni-node", "--type=merge", "-p", `{"spec":{"template":{"spec":{"affinity":`+affinity+`}}}}`)
	}
	before := m.get(t, "istio-system", "ds/istio-cni-node", ".spec.template.spec.affinity")
	if before == "" {
		before = "null"
	}
	agents(away)
	back := false
	t.Cleanup(func() {
		if !back {
			agents(before)
			m.rolledOut(t, "ds/istio-cni-node")
		}
	})
	m.Eventually(t, patience, "no agent's pod is on "+m.two, func() error {
		out, err := m.Try("get", "pods", "-n", "istio-system", "-l", "k8s-app=istio-cni-node", "--field-selector=spec.nodeName="+m.two, "-o", "name")
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}
		return err
	})
	m.apply(t, m.ns, m.first("waits", m.two, "", "[load, first]"))
	time.Sleep(12 * time.Second) // the fault's length: the API server remembers for 10 s that a token was good
	start := time.Now()
	m.apply(t, plain, pod{name: "outside", node: m.two}.yaml())
	m.ready(t, plain)
	took := time.Since(start).Round(time.Millisecond)
	t.Logf("without an agent a pod outside the mesh is ready after %v", took)
	if took > 30*time.Second {
		t.Errorf("a pod outside the mesh waited %v on a node without an agent", took)
	}
	m.Eventually(t, patience, "the pod of the mesh says what it waits for", func() error {
		out, err := m.Try("get", "events", "-n", m.ns, "--field-selector=involvedObject.name=waits,reason=FailedCreatePodSandBox", "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(out, "it is of the mesh: namespace label") {
			err = fmt.Errorf("its events say %q", out)
		}
		return err
	})
	if phase := m.get(t, m.ns, "pod/waits", ".status.phase"); phase != "Pending" {
		t.Errorf("a pod of the mesh is %s on a node without an agent", phase)
	}
	agents(before)
	back = true
	m.rolledOut(t, "ds/istio-cni-node")
	start = time.Now()
	m.Eventually(t, patience, "the pod of the mesh runs and says what it saw", func() error {
		var f load.First
		out, err := m.Try("logs", "-n", m.ns, "waits")
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(out), &f); err != nil {
			return fmt.Errorf("it says %q: %w", out, err)
		}
		if !f.Captured {
			t.Error("the pod that waited was not captured at its first act")
		}
		return nil
	})
	t.Logf("the pod of the mesh runs %v after the agent is back", time.Since(start).Round(time.Millisecond))
	m.captured(t, m.ns, "waits")
	l.endWithout(t)
}
