package faults

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/localtest"
)

// The load beside each fault: connections with random bytes each way, checked, and long ones with messages each way.
var (
	newRate = perSecond(either(150, 1000))
	held    = "-long=" + strconv.Itoa(either(40, 200))
)

func TestFaults(t *testing.T) {
	m := start(t)
	t.Run("F24 byte integrity", m.integrity)
	t.Run("F1 the control plane is away", m.controlPlaneAway)
	t.Run("F3 rolling restart of ztunnel", m.rollingZtunnel)
	t.Run("F7 the agent is killed while pods come", m.agentKilled)
	t.Run("F8 a node is cut off", m.partition)
	t.Run("F14 each component is killed", m.killed)
	t.Run("F15 many connections at once", m.many)
	t.Run("F16 pods come and go", m.churn)
	t.Run("F23 ztunnel is stopped and goes on", m.stopped)
	t.Run("F25 slow consumers", m.slow)
}

// integrity: random sizes, half-closes, resets by either end. What the client cut, the server saw cut, and the reverse.
func (m *mesh) integrity(t *testing.T) {
	before := m.seen(t)
	l := m.offer(t, "-rude", "-rate="+strconv.Itoa(either(400, 1500)), "-size=65536", "-count="+strconv.Itoa(either(2500, 100_000)))
	l.wait(t).without(t)
	after := m.seen(t)
	if w, f := after.Wrong-before.Wrong, after.False-before.False; w+f > 0 {
		t.Errorf("the server saw %d connections with a wrong byte and %d cut ones that looked complete", w, f)
	}
	if after.Broken == before.Broken {
		t.Error("the server saw no reset, though clients reset connections")
	}
}

func (m *mesh) controlPlaneAway(t *testing.T) {
	yaml := m.Run(t, "get", "deploy", "istiod", "-n", "istio-system", "-o", "yaml")
	l := m.offer(t, newRate, held)
	m.Run(t, "delete", "deploy", "istiod", "-n", "istio-system")
	localtest.Eventually(t, 20*time.Second, "istiod is gone", func() bool {
		out, err := m.Try("get", "pods", "-n", "istio-system", "-l", "app=istiod", "--no-headers")
		return err == nil && !strings.Contains(out, "istiod")
	})
	time.Sleep(either(4*time.Second, 2*time.Hour)) // the fault's length
	m.Apply(t, yaml)
	m.Run(t, "rollout", "status", "-n", "istio-system", "deploy/istiod")
	time.Sleep(time.Second) // the load goes on while the proxies come back
	l.end(t).without(t)
}

func (m *mesh) rollingZtunnel(t *testing.T) {
	news := m.offer(t, newRate)
	for range either(1, 10) {
		old := m.pods(t, "istio-system", "app=ztunnel")
		long := m.offer(t, perSecond(0), held)
		m.Run(t, "rollout", "restart", "-n", "istio-system", "ds/ztunnel")
		m.Run(t, "rollout", "status", "-n", "istio-system", "ds/ztunnel")
		time.Sleep(2 * time.Second) // the old ones drain meanwhile, and keep what they have
		long.end(t).withoutLost(t)
		localtest.Eventually(t, 10*time.Second, "the old ztunnels end once their connections have", func() bool {
			out, err := m.Try("get", "pods", "-n", "istio-system", "-l", "app=ztunnel", "--no-headers")
			return err == nil && !slices.ContainsFunc(old, func(pod string) bool { return strings.Contains(out, pod) })
		})
	}
	time.Sleep(time.Second) // of load after it
	news.end(t).without(t)
}

// agentKilled: pods keep coming while the agent is killed again and again. Each looks at its own network as its first
// act, and must see the proxy's ports.
func (m *mesh) agentKilled(t *testing.T) {
	m.Apply(t, strings.NewReplacer("REPLICAS", strconv.Itoa(either(12, 50))).Replace(suspicious))
	rounds := either(3, 20)
	for range rounds {
		pod := m.pod(t, "istio-system", "k8s-app=istio-cni-node", "node-2")
		localtest.Eventually(t, 30*time.Second, "the agent runs, and is killed", func() bool {
			_, err := m.Try("kill", "-n", "istio-system", pod)
			return err == nil
		})
		// Some are gone by themselves before it comes to them.
		if out, err := m.Try("delete", "pods", "-n", "load", "-l", "app=suspicious", "--wait=false"); err != nil && !strings.Contains(out, "NotFound") {
			t.Fatalf("delete pods: %v\n%s", err, out)
		}
	}
	m.Run(t, "rollout", "status", "-n", "load", "deploy/suspicious", "--timeout", "60s")
	logs := m.Run(t, "logs", "-n", "load", "-l", "app=suspicious", "--tail", "-1")
	if strings.Contains(logs, "UNCAPTURED") || !strings.Contains(logs, "captured at the first act") {
		t.Errorf("pods that saw no proxy as they started:\n%s", logs)
	}
	l := m.offer(t, newRate)
	time.Sleep(time.Second) // of load after the faults
	l.end(t).without(t)
	m.Run(t, "delete", "deploy", "suspicious", "-n", "load")
}

const suspicious = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: suspicious, namespace: load}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: suspicious}}
  template:
    metadata: {labels: {app: suspicious}}
    spec:
      nodeName: node-2
      terminationGracePeriodSeconds: 0
      containers:
        - name: first
          image: curlimages/curl
          command: [sh, -c, 'if cat /proc/net/tcp /proc/net/tcp6 | grep -qi ":3a99 .* 0A "; then echo captured at the first act; exec sleep infinity; else echo UNCAPTURED; exit 1; fi']
`

func (m *mesh) partition(t *testing.T) {
	length := either(8*time.Second, time.Minute)
	l := m.offer(t, newRate, "-timeout=5s")
	time.Sleep(time.Second) // of load before the fault
	m.Run(t, "unplug", "node-3")
	time.Sleep(length)
	m.Run(t, "plug", "node-3")
	healed := time.Now()
	time.Sleep(12 * time.Second) // the figure is 10 s
	r := l.end(t)
	if r.Last == 0 {
		t.Error("nothing failed: the node was not cut off")
	}
	if after := time.UnixMilli(r.Last).Sub(healed); after > 10*time.Second {
		t.Errorf("the last connection that failed began %v after the node was back, want at most 10 s", after)
	} else {
		t.Logf("the last connection that failed began %v after the node was back", after.Round(time.Millisecond))
	}
}

// killed: SIGKILL, as the kernel does to a process that wants too much memory.
func (m *mesh) killed(t *testing.T) {
	for _, c := range []struct {
		what, label, node string
		within            time.Duration
		lossless          bool
	}{
		{"ztunnel of the server", "app=ztunnel", "node-3", 5 * time.Second, false},
		{"ztunnel of the client", "app=ztunnel", "node-2", 5 * time.Second, false},
		{"istio-cni-node", "k8s-app=istio-cni-node", "node-3", 5 * time.Second, true},
		{"istiod", "app=istiod", "", 10 * time.Second, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			l := m.offer(t, newRate, "-timeout=3s")
			pod := m.pod(t, "istio-system", c.label, c.node)
			time.Sleep(500 * time.Millisecond) // of load before the fault
			restarts := m.Run(t, "get", "pod", pod, "-n", "istio-system", "-o", "jsonpath={.status.containerStatuses[0].restartCount}") + " "
			at := time.Now()
			m.Run(t, "kill", "-n", "istio-system", pod)
			localtest.Eventually(t, c.within, c.what+" is ready again", func() bool {
				out, err := m.Try("get", "pod", pod, "-n", "istio-system", "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
				return err == nil && !strings.HasPrefix(out, restarts) && strings.HasSuffix(out, " true")
			})
			t.Logf("ready again %v after it was killed", time.Since(at).Round(10*time.Millisecond))
			time.Sleep(time.Second) // of load after it
			r := l.end(t)
			if c.lossless {
				r.without(t)
				return
			}
			if r.Last > 0 {
				if after := time.UnixMilli(r.Last).Sub(at); after > c.within {
					t.Errorf("connections failed until %v after, want at most %v", after, c.within)
				} else {
					t.Logf("connections failed until %v after", after.Round(time.Millisecond))
				}
			}
		})
	}
}

func (m *mesh) many(t *testing.T) {
	before := m.memory(t, "ztunnel")
	n := either(1000, 10_000)
	l := m.offer(t, "-rate=20", "-long="+strconv.Itoa(n))
	time.Sleep(either(6*time.Second, 10*time.Minute))
	during := m.memory(t, "ztunnel")
	l.end(t).without(t)
	for pod, rss := range during {
		if grown := rss - before[pod]; grown > int64(n)*(40<<10) {
			t.Errorf("%s grew by %d KiB for %d connections, want at most 40 KiB each", pod, grown>>10, n)
		}
		if rss > 400<<20 {
			t.Errorf("%s has %d MiB resident, want at most 400", pod, rss>>20)
		}
		t.Logf("%s: %.1f MiB before, %.1f MiB with %d connections", pod, float64(before[pod])/(1<<20), float64(rss)/(1<<20), n)
	}
}

// churn: pods of the mesh come and go beside the load; afterwards ztunnel knows none of them any more.
func (m *mesh) churn(t *testing.T) {
	l := m.offer(t, newRate, held)
	for range either(2, 10) {
		m.Apply(t, strings.NewReplacer("REPLICAS", strconv.Itoa(either(20, 100))).Replace(suspicious))
		m.Run(t, "rollout", "status", "-n", "load", "deploy/suspicious", "--timeout", "60s")
		m.Run(t, "delete", "deploy", "suspicious", "-n", "load")
		localtest.Eventually(t, 30*time.Second, "the pods are gone", func() bool {
			out, err := m.Try("get", "pods", "-n", "load", "-l", "app=suspicious", "--no-headers")
			return err == nil && !strings.Contains(out, "suspicious")
		})
		took := localtest.Eventually(t, 2*time.Second, "ztunnel forgets them", func() bool {
			out, err := m.ztunnelConfig("workload")
			return err == nil && !strings.Contains(out, "suspicious")
		})
		t.Logf("forgotten %v after the last was gone", took.Round(time.Millisecond))
	}
	l.end(t).without(t)
}

func (m *mesh) stopped(t *testing.T) {
	l := m.offer(t, newRate, "-timeout=90s", held)
	pod := m.pod(t, "istio-system", "app=ztunnel", "node-3")
	time.Sleep(500 * time.Millisecond) // of load before the fault
	m.Run(t, "kill", "-n", "istio-system", pod, "--signal", "STOP")
	time.Sleep(either(4*time.Second, time.Minute))
	m.Run(t, "kill", "-n", "istio-system", pod, "--signal", "CONT")
	at := time.Now()
	time.Sleep(6 * time.Second) // the figure is 5 s
	r := l.end(t)
	if r.Last > 0 {
		if after := time.UnixMilli(r.Last).Sub(at); after > 5*time.Second {
			t.Errorf("connections failed until %v after, want at most 5 s", after)
		}
	}
	if !long() {
		r.without(t) // a stop shorter than the keepalive costs nothing but time
	}
}
