package kubernetes

import (
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// testAPIServer: the API server is killed and comes back, and its store is slow: nothing that exists is withdrawn, and
// what changes afterwards counts within 30 s (F18, FT-18).
func testAPIServer(t *testing.T, c *kube.Cluster) {
	c.NeedsOwn(t)
	m := crowded(t, c)
	t.Run("FT-18 killed", func(t *testing.T) {
		l := m.offer(t, "rate=100&long=20")
		for range 2 {
			c.Enter(t, "control-plane", "pkill", "-KILL", "-x", "kube-apiserver")
			m.answers(t)
		}
		m.caughtUp(t, "killed")
		l.endWithout(t)
	})
	t.Run("FT-18 slow", func(t *testing.T) {
		l, ch := m.offer(t, "rate=100&long=20"), m.churn(t)
		c.Enter(t, "control-plane", "sh", "-c",
			`for i in $(seq 12); do pkill -STOP -x etcd; sleep 0.7; pkill -CONT -x etcd; sleep 0.1; done; pkill -STOP -x etcd; sleep 5; pkill -CONT -x etcd`)
		m.answers(t)
		m.caughtUp(t, "slow")
		ch.end(t)
		l.endWithout(t)
	})
}

// answers waits until the API server does.
func (m *crowd) answers(t *testing.T) {
	t.Helper()
	m.Eventually(t, patience, "the API server answers", func() error {
		_, err := m.Try("get", "--raw", "/readyz", "--request-timeout=5s")
		return err
	})
}

// caughtUp holds that a new pod is captured, and a new policy counts, within 30 s of the API server's return.
func (m *crowd) caughtUp(t *testing.T, name string) {
	t.Helper()
	back := time.Now()
	m.inForce(t, name)
	m.apply(t, m.ns, m.first("first-"+name, m.two, "", "[load, first]"))
	m.captured(t, m.ns, "first-"+name)
	took := time.Since(back)
	t.Logf("a policy in force and a pod captured %v after it was back", took.Round(time.Millisecond))
	if took > 30*time.Second {
		t.Errorf("caught up %v after the API server was back, want at most 30 s", took)
	}
}
