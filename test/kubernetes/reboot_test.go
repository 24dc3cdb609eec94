package kubernetes

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/samples/apps/load"
	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
	"github.com/ambit-mesh/ambit/test/kubernetes/sniff"
)

// testReboot: a node loses its power without a drain. Its pods' sandboxes are remembered and their processes gone; none
// may run again before it is captured (CN-04).
func testReboot(t *testing.T, c *kube.Cluster) {
	c.NeedsOwn(t)
	m := crowded(t, c)
	const mark = "said-after-a-reboot"
	m.apply(t, m.ns, service("echo", ""), pod{name: "echo", node: m.one}.yaml())
	m.ready(t, m.ns, "-l", "app=echo")
	var pods []string
	for i := range 6 {
		name := fmt.Sprintf("first-%d", i)
		pods = append(pods, name)
		m.apply(t, m.ns, m.first(name, m.two, "", fmt.Sprintf("[load, first, -mark, %s, -to, %q]", mark, m.address(t, m.ns, "echo")+":9000")))
	}
	m.ready(t, m.ns)
	for _, p := range pods {
		m.captured(t, m.ns, p)
	}
	// As the node's own network plugin may do before the agent runs.
	rewrite := []string{"sh", "-ec", "cd etc/cni/net.d; cp 10-cluster.conflist new; mv new 10-cluster.conflist"}
	for _, round := range []struct {
		name    string
		between []string
	}{{"once", nil}, {"again, and the network's configuration is rewritten", rewrite}} {
		t.Run("CN-04 "+round.name, func(t *testing.T) {
			wire, err := sniff.Start(c.State, []byte(mark))
			if err != nil {
				t.Fatal(err)
			}
			l := m.offer(t, "rate=50&timeout=5s")
			before := m.restarted(t, m.ns, m.two)
			at := time.Now()
			c.Reboot(t, m.two, round.between...)
			m.Eventually(t, 2*time.Minute, "every pod of the node runs again", func() error {
				return m.restartedSince(before)
			})
			t.Logf("every pod of the node runs again, and is ready, %v after the node's power was lost", time.Since(at).Round(time.Millisecond))
			for _, p := range append(pods, "server") {
				m.captured(t, m.ns, p)
			}
			for _, p := range pods {
				m.Eventually(t, patience, "the log of "+p, func() error { // kubelet may be about to start it
					var f load.First
					out, err := c.Try("logs", "-n", m.ns, p)
					if err != nil {
						return err
					}
					if err := json.Unmarshal([]byte(out), &f); err != nil || f.At < at.UnixNano() {
						return fmt.Errorf("it says %q: %v", out, err)
					}
					if !f.Captured {
						t.Errorf("%s was not captured at its first act after the reboot", p)
					}
					return nil
				})
			}
			time.Sleep(time.Second) // of marks and load after it
			l.cut(t, at, 90*time.Second)
			r, err := wire.Stop()
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Found) > 0 || r.Seen == 0 {
				t.Errorf("of %d segments on the wire, %d in the clear: %v", r.Seen, len(r.Found), r.Found)
			}
			if r.Lost > 0 {
				t.Logf("%d segments were not looked at", r.Lost)
			}
			m.quiet(t)
		})
	}
}

// restarted is how often the pods of a node were started again, by name.
func (m *crowd) restarted(t *testing.T, ns, node string) string {
	t.Helper()
	return m.Kubectl(t, "get", "pods", "-n", ns, "--field-selector=spec.nodeName="+node, "-o", restartsPath)
}

const restartsPath = `jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}{"\n"}{end}`

// restartedSince tells which of those pods have not, or are not ready.
func (m *crowd) restartedSince(before string) error {
	now, err := m.Try("get", "pods", "-n", m.ns, "--field-selector=spec.nodeName="+m.two, "-o", restartsPath)
	if err != nil {
		return err
	}
	for line := range strings.Lines(before) {
		name, was, _ := strings.Cut(strings.TrimSpace(line), " ")
		for other := range strings.Lines(now) {
			if n, is, _ := strings.Cut(strings.TrimSpace(other), " "); n == name && (is == was || !strings.HasSuffix(is, " true")) {
				return fmt.Errorf("%s has %s, before %s", name, is, was)
			}
		}
	}
	return nil
}

// quiet holds that no pod was found to have run without its rules.
func (m *crowd) quiet(t *testing.T) {
	t.Helper()
	if out := m.Kubectl(t, "get", "events", "-n", m.ns, "--field-selector=reason=MeshRanUncaptured", "-o", "name"); strings.TrimSpace(out) != "" {
		t.Errorf("pods ran uncaptured:\n%s", m.Kubectl(t, "get", "events", "-n", m.ns))
	}
}
