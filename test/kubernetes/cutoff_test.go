package kubernetes

import (
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// testCutOff: a node's link is down for a while. What begins later than 10 s after its return is as ever (F8, FT-08).
func testCutOff(t *testing.T, c *kube.Cluster) {
	c.NeedsOwn(t)
	m := crowded(t, c)
	l := m.offer(t, "rate=50&long=10&timeout=5s")
	time.Sleep(time.Second) // of load before the fault
	link := func(state string) { c.Enter(t, "control-plane", "ip", "link", "set", m.two, state) }
	link("down")
	time.Sleep(12 * time.Second) // the fault's length: shorter than the node controller's patience
	link("up")
	back := time.Now()
	time.Sleep(12 * time.Second) // the figure is 10 s
	r := l.end(t)
	if r.Last == 0 {
		t.Error("nothing failed: the node was not cut off")
	}
	settledBy(t, r, back, 10*time.Second)
	m.rolledOut(t, "ds/ztunnel")
	m.rolledOut(t, "ds/istio-cni-node")
}
