package kubernetes

import (
	"fmt"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// testZtunnel: the node proxy is killed and upgraded under load, while pods come.
func testZtunnel(t *testing.T, c *kube.Cluster) {
	m := crowded(t, c)
	t.Run("F14 killed", func(t *testing.T) {
		c.NeedsOwn(t)
		for _, node := range []string{m.two, m.one} { // of the server, of the client
			l := m.offer(t, "rate=100&timeout=5s")
			time.Sleep(500 * time.Millisecond) // of load before the fault
			at := m.kill(t, node, "ztunnel")
			m.rolledOut(t, "ds/ztunnel")
			t.Logf("rolled out again %v after the one of %s was killed", time.Since(at).Round(time.Millisecond), node)
			time.Sleep(time.Second) // of load after it
			l.cut(t, at, 20*time.Second)
		}
	})
	t.Run("FT-03 rolled", func(t *testing.T) {
		m.roll(t, 20, func() { c.Kubectl(t, "rollout", "restart", "-n", "istio-system", "ds/ztunnel") })
	})
	t.Run("F26 upgraded and back", func(t *testing.T) {
		next := m.nextImage(t, "ztunnel")
		for _, image := range []string{next, c.Image("ztunnel")} {
			m.roll(t, 0, func() { c.Kubectl(t, "set", "image", "-n", "istio-system", "ds/ztunnel", "istio-proxy="+image) })
		}
	})
}

// roll holds that new connections lose nothing while every ztunnel is replaced, and that long ones live as long as the
// elder may take to end: until 5 s before terminationGracePeriodSeconds.
func (m *crowd) roll(t *testing.T, held int, begin func()) {
	t.Helper()
	const drain = 35 * time.Second
	ch := m.churn(t)
	long, at := m.offer(t, fmt.Sprintf("rate=100&long=%d", held)), time.Now()
	begin()
	m.rolledOut(t, "ds/ztunnel")
	took := time.Since(at)
	ch.end(t)
	r := long.end(t)
	t.Logf("rolled out in %v", took.Round(time.Millisecond))
	if r.Whole != r.Tried {
		t.Errorf("%d of %d new connections failed: %v", r.Tried-r.Whole, r.Tried, r.Failed)
	}
	if r.Lost > 0 && time.UnixMilli(r.FirstLost).Sub(at) < drain {
		t.Errorf("%d of %d long connections lost, the first %v after the start, before any ztunnel's time was over: %v",
			r.Lost, r.Long, time.UnixMilli(r.FirstLost).Sub(at).Round(time.Millisecond), r.LostWhy)
	}
}
