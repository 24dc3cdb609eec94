package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/samples/apps/load"
	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// crowd is a server and a client of the mesh, on different nodes, in a namespace of their own.
type crowd struct {
	*stage
	ns string
}

// crowded makes a crowd whose client is on node one and whose server is on node two.
func crowded(t *testing.T, c *kube.Cluster) *crowd {
	t.Helper()
	s := newStage(t, c)
	m := &crowd{s, s.ambient(t, "crowd")}
	m.apply(t, m.ns,
		`{apiVersion: v1, kind: Service, metadata: {name: server}, spec: {selector: {app: server}, ports: [{name: tcp, port: 9000}]}}`,
		pod{name: "server", node: m.two, args: `[load, serve, ":9000"]`, container: ", readinessProbe: {tcpSocket: {port: 9001}, periodSeconds: 1}"}.yaml(),
		pod{name: "client", node: m.one, args: `[load, ready, "127.0.0.1:9002"]`}.yaml())
	m.ready(t, m.ns)
	m.captured(t, m.ns, "client")
	m.captured(t, m.ns, "server")
	return m
}

// offering is a load that goes on until it is ended.
type offering struct {
	m     *crowd
	began time.Time
	ended bool
}

// offer begins a load of the client on the server, as "rate=100&long=20&timeout=5s".
func (m *crowd) offer(t *testing.T, flags string) *offering {
	t.Helper()
	m.obey(t, "begin?"+flags+"&to="+url.QueryEscape("server:9000"))
	o := &offering{m: m, began: time.Now()}
	t.Cleanup(func() {
		if !o.ended { // the next part of a test that failed shall not fail for it
			_, _ = m.tell("end")
		}
	})
	return o
}

func (m *crowd) tell(what string) (string, error) {
	return m.Try("exec", "-n", m.ns, "client", "--", "curl", "-sSf", "http://127.0.0.1:9002/"+what)
}

func (m *crowd) obey(t *testing.T, what string) (out string) {
	t.Helper()
	m.Eventually(t, patience, "the load obeys "+what, func() (err error) {
		out, err = m.tell(what)
		return err
	})
	return out
}

// end says what became of the load. A wrong byte, and a cut transfer that looked complete, fail the test.
func (o *offering) end(t *testing.T) load.Report {
	t.Helper()
	out := o.m.obey(t, "end")
	o.ended = true
	var r load.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("report %q: %v", out, err)
	}
	t.Logf("load: %d connections in %.1fs, p50 %.1f ms, p99 %.1f ms, longest gap %d ms; failed %v; of %d long %d lost %v, longest silence %d ms",
		r.Tried, time.Since(o.began).Seconds(), r.P50, r.P99, r.Gap, r.Failed, r.Long, r.Lost, r.LostWhy, r.Silent)
	if r.Wrong+r.False > 0 {
		t.Errorf("%d connections with a wrong byte, %d cut ones that looked complete", r.Wrong, r.False)
	}
	if r.Tried == 0 || r.Whole == 0 {
		t.Error("no connection succeeded")
	}
	return r
}

// cut ends a load that a fault has cut. What began later than so long after it succeeded, and none looked complete.
func (o *offering) cut(t *testing.T, fault time.Time, within time.Duration) {
	t.Helper()
	settledBy(t, o.end(t), fault, within)
}

// endWithout ends the load, which must have lost nothing.
func (o *offering) endWithout(t *testing.T) load.Report {
	t.Helper()
	r := o.end(t)
	if r.Whole != r.Tried {
		t.Errorf("%d of %d new connections failed: %v", r.Tried-r.Whole, r.Tried, r.Failed)
	}
	if r.Lost > 0 {
		t.Errorf("%d of %d long connections lost: %v", r.Lost, r.Long, r.LostWhy)
	}
	return r
}

// settledBy fails if a connection that began later than so long after a fault failed.
func settledBy(t *testing.T, r load.Report, fault time.Time, within time.Duration) {
	t.Helper()
	if r.Last == 0 {
		t.Log("no new connection failed")
		return
	}
	after := time.UnixMilli(r.Last).Sub(fault)
	t.Logf("connections failed until %v after", after.Round(time.Millisecond))
	if after > within {
		t.Errorf("connections failed until %v after, want at most %v", after.Round(time.Millisecond), within)
	}
}

// churn makes pods of the mesh and deletes them, some at a time, until it is stopped. Each looks at its own network as
// its first act.
type churn struct {
	m       *crowd
	stop    chan struct{}
	done    sync.WaitGroup
	seen    int
	slowest time.Duration
	failed  []string
}

const batch = 4

func (m *crowd) churn(t *testing.T) *churn {
	t.Helper()
	ch := &churn{m: m, stop: make(chan struct{})}
	ch.done.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-ch.stop:
				return
			default:
				ch.round(n)
			}
		}
	})
	return ch
}

// round is a batch of pods. What the API server does not answer is asked again.
func (ch *churn) round(n int) {
	m, label, start := ch.m, fmt.Sprintf("batch=%d", n), time.Now()
	var objects []string
	for i := range batch {
		name := fmt.Sprintf("first-%d-%d", n, i)
		objects = append(objects, m.first(name, [...]string{m.one, m.two}[i%2], fmt.Sprintf(`, batch: "%d"`, n), "[load, first]"))
	}
	again := func(what string, do func() (string, error)) (out string) {
		for ; ; time.Sleep(100 * time.Millisecond) { // between two looks at another machine
			out, err := do()
			if err == nil {
				return out
			}
			if time.Since(start) > 3*time.Minute {
				ch.failed = append(ch.failed, fmt.Sprintf("%s: %v", what, err))
				return ""
			}
		}
	}
	again("create pods", func() (string, error) { return m.tryApply(strings.Join(objects, "\n---\n")) })
	said := again("what pods saw", func() (string, error) {
		out, err := m.Try("logs", "-n", m.ns, "-l", label, "--tail=-1")
		if n := strings.Count(out, "\n"); err == nil && n < batch {
			err = fmt.Errorf("%d of %d pods have said what they saw", n, batch)
		}
		return out, err
	})
	ch.slowest = max(ch.slowest, time.Since(start))
	for line := range strings.Lines(said) {
		var f load.First
		if err := json.Unmarshal([]byte(line), &f); err != nil || !f.Captured {
			ch.failed = append(ch.failed, fmt.Sprintf("a pod of batch %d saw no proxy as it started: %s", n, line))
		}
		ch.seen++
	}
	again("delete pods", func() (string, error) { return m.Try("delete", "pods", "-n", m.ns, "-l", label, "--wait=false") })
}

// first describes a pod that looks at its network as its first act.
func (m *crowd) first(name, node, labels, args string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, labels: {app: first%s}}, spec: {nodeName: %s, terminationGracePeriodSeconds: 0,
  enableServiceLinks: false, containers: [{name: first, image: %s, args: %s}]}}`, name, labels, node, m.Image("ambit-sample"), args)
}

func (m *crowd) tryApply(yaml string) (string, error) {
	cmd := m.Command(context.Background(), "apply", "-n", m.ns, "-f", "-")
	cmd.Stdin = strings.NewReader(yaml)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// end stops the churn, which must have made some pods, every one captured at its first act.
func (ch *churn) end(t *testing.T) {
	t.Helper()
	close(ch.stop)
	ch.done.Wait()
	t.Logf("churn: %d pods, all captured at their first act; the slowest batch of %d took %v", ch.seen, batch, ch.slowest.Round(time.Millisecond))
	for _, f := range ch.failed {
		t.Error(f)
	}
	if ch.seen == 0 {
		t.Error("no pod came")
	}
}
