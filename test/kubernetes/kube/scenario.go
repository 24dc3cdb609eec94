package kube

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// Scenario is something that must hold on a cluster with a mesh.
type Scenario struct {
	Name string
	Run  func(*testing.T, *Cluster)
}

// Run runs scenarios, at most so many at a time. It says in the log what is needed to know why one failed.
func (c *Cluster) Run(t *testing.T, together int, scenarios ...Scenario) {
	t.Helper()
	var running sync.WaitGroup
	free := make(chan struct{}, together)
	for _, s := range scenarios {
		free <- struct{}{}
		running.Go(func() {
			defer func() { <-free }()
			t.Run(s.Name, func(t *testing.T) { c.scenario(t, s) })
		})
	}
	running.Wait()
}

func (c *Cluster) scenario(t *testing.T, s Scenario) {
	start := time.Now()
	mine := *c
	mine.spaces = new([]string)
	defer func() {
		result := "held"
		switch {
		case t.Failed():
			result = "FAILED"
			mine.lastWords(t) // before the namespaces go
		case t.Skipped():
			result = "skipped"
		}
		c.times.add(s.Name, result, time.Since(start))
	}()
	s.Run(t, &mine)
}

// Table is how long each scenario took.
func (c *Cluster) Table() string { return c.times.String() }

// table collects rows from several goroutines.
type table struct {
	mu   sync.Mutex
	rows []string
}

func (a *table) add(what, result string, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rows = append(a.rows, fmt.Sprintf("%s\t%s\t%.1fs\n", what, result, took.Seconds()))
}

func (a *table) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "SCENARIO\tRESULT\tTIME\n", strings.Join(a.rows, ""))
	_ = w.Flush() // a builder takes everything
	return b.String()
}

// lastWords logs what the cluster can tell about a failure.
func (c *Cluster) lastWords(t *testing.T) {
	t.Helper()
	say := func(args ...string) {
		out, err := c.Try(args...)
		if err != nil {
			out = err.Error()
		}
		t.Logf("$ kubectl %s\n%s", strings.Join(args, " "), out)
	}
	say("get", "pods", "-A", "-o", "wide")
	for _, n := range *c.spaces {
		say("get", "events", "-n", n, "--sort-by=.lastTimestamp")
		if pods, err := c.Try("get", "pods", "-n", n, "-o", "name"); err == nil {
			for _, p := range strings.Fields(pods) {
				say("logs", "-n", n, p, "--all-containers", "--tail=15")
			}
		}
	}
	say("get", "events", "-n", "istio-system", "--sort-by=.lastTimestamp")
	for _, app := range []string{"app=ztunnel", "app=istiod", "k8s-app=istio-cni-node"} {
		args := []string{"logs", "-n", "istio-system", "-l", app, "--tail=1000", "--prefix", "--max-log-requests=20"}
		out, err := c.Try(args...)
		if err != nil {
			out = err.Error()
		}
		t.Logf("$ kubectl %s # of each pod the last lines, but those of connections that went well\n%s", strings.Join(args, " "), telling(out, 40))
	}
}

// telling are the last lines of each pod, without those of connections that went well.
func telling(logs string, most int) string {
	pods := map[string][]string{}
	var order []string
	for line := range strings.Lines(logs) {
		if strings.Contains(line, "connection complete") && !strings.Contains(line, "error") {
			continue
		}
		pod, _, _ := strings.Cut(line, " ")
		if pods[pod] == nil {
			order = append(order, pod)
		}
		pods[pod] = append(pods[pod], line)
	}
	var b strings.Builder
	for _, pod := range order {
		lines := pods[pod]
		b.WriteString(strings.Join(lines[max(0, len(lines)-most):], ""))
	}
	return b.String()
}
