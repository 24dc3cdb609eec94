package kubernetes

import (
	"fmt"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// testAgent: the node agent is killed, restarted, upgraded and taken off a node while pods come and connections are made (F7, F14, F26).
func testAgent(t *testing.T, c *kube.Cluster) {
	m := crowded(t, c)
	t.Run("FT-07 killed", func(t *testing.T) {
		c.NeedsOwn(t)
		l, ch := m.offer(t, "rate=50&long=10"), m.churn(t)
		for range 2 { // kubelet waits 10 s before it starts it the second time
			for _, n := range []string{m.one, m.two} {
				m.kill(t, n, "ambit-node")
				m.runs(t, n, "ambit-node")
			}
			m.rolledOut(t, "ds/istio-cni-node")
		}
		ch.end(t)
		l.endWithout(t)
	})
	t.Run("FT-07 rolled", func(t *testing.T) {
		l, ch := m.offer(t, "rate=50&long=10"), m.churn(t)
		c.Kubectl(t, "rollout", "restart", "-n", "istio-system", "ds/istio-cni-node")
		m.rolledOut(t, "ds/istio-cni-node")
		ch.end(t)
		l.endWithout(t)
	})
	t.Run("F26 upgraded and back", func(t *testing.T) {
		next := m.nextImage(t, "ambit-node")
		l, ch := m.offer(t, "rate=50&long=10"), m.churn(t)
		for _, image := range []string{next, c.Image("ambit-node")} {
			c.Kubectl(t, "set", "image", "-n", "istio-system", "ds/istio-cni-node", "install-cni="+image)
			m.rolledOut(t, "ds/istio-cni-node")
		}
		ch.end(t)
		l.endWithout(t)
	})
	t.Run("CN-01 gone from a node", m.withoutAgent)
}

// rolledOut waits until a workload of the mesh is rolled out.
func (m *crowd) rolledOut(t *testing.T, what string) {
	t.Helper()
	m.Kubectl(t, "rollout", "status", "-n", "istio-system", what, "--timeout=3m")
}

// kill ends a program of the mesh on a node at once, as the kernel does to one that wants too much memory.
func (m *crowd) kill(t *testing.T, node, program string) (at time.Time) {
	t.Helper()
	m.NeedsOwn(t)
	m.Eventually(t, patience, program+" runs on "+node+" and is killed", func() error {
		at = time.Now()
		_, err := m.TryEnter(node, "pkill", "-KILL", "-x", program)
		return err
	})
	return at
}

// runs waits until a program does, on a node.
func (m *crowd) runs(t *testing.T, node, program string) {
	t.Helper()
	m.Eventually(t, patience, program+" runs on "+node, func() error {
		_, err := m.TryEnter(node, "pgrep", "-x", program)
		return err
	})
}

// nextImage is an image of the mesh by another tag, as one of the next version would be.
func (m *crowd) nextImage(t *testing.T, name string) string {
	t.Helper()
	m.NeedsOwn(t)
	now, next := m.Image(name), fmt.Sprintf("%s/%s:%s-next", m.Hub, name, m.Tag)
	for _, n := range m.Nodes(t) {
		m.Enter(t, n, "ctr", "-n", "k8s.io", "images", "tag", "--force", now, next)
	}
	return next
}
