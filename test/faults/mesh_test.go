// Package faults breaks parts of a mesh under load and counts what the load lost.
//
// The faults and their figures are those of the reliability table in docs/reliability.md. FAULTS=long runs them at
// full length.
package faults

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/localtest"
	app "github.com/ambit-mesh/ambit/samples/apps/load"
)

func TestMain(m *testing.M) { localtest.Main(m) }

// long tells whether faults run at full length.
func long() bool { return os.Getenv("FAULTS") == "long" }

// either is the short form's value or the long form's.
func either[T any](short, full T) T {
	if long() {
		return full
	}
	return short
}

// mesh is a cluster with a server and a client on different nodes, both of the mesh.
type mesh struct{ *localtest.Cluster }

const applications = `
apiVersion: v1
kind: Namespace
metadata: {name: load, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: load}
spec:
  selector: {app: server}
  ports: [{name: tcp, port: 9000}, {name: http-seen, port: 9001}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: server, namespace: load}
spec:
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      nodeName: node-3
      containers:
        - name: server
          image: curlimages/curl
          command: [/ambit/bin/ambit-sample, load, serve, ":9000"]
          readinessProbe: {tcpSocket: {port: 9001}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: load}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      nodeName: node-2
      containers:
        - name: client
          image: curlimages/curl
          command: [sleep, infinity]
`

func start(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{localtest.Up(t, localtest.Binaries(t))}
	m.Apply(t, applications)
	m.Run(t, "rollout", "status", "-n", "load", "deploy/server")
	m.Run(t, "rollout", "status", "-n", "load", "deploy/client")
	localtest.Eventually(t, 10*time.Second, "both pods captured", func() bool {
		out, err := m.Try("get", "pods", "-n", "load", "-o", "yaml")
		return err == nil && strings.Count(out, "ambient.istio.io/redirection: enabled") == 2
	})
	return m
}

// Report is what the load program says at its end.
type Report struct{ app.Report }

// load is connections being offered by the client's pod.
type load struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	out, err bytes.Buffer
	began    time.Time
}

// offer starts the load program in the client's pod.
func (m *mesh) offer(t *testing.T, flags ...string) *load {
	t.Helper()
	l := &load{cmd: m.Command(t.Context(), append(append([]string{"exec", "-i", "-n", "load", "deploy/client", "--", "/ambit/bin/ambit-sample", "load", "offer"}, flags...), "server:9000")...)}
	// The program itself writes to what this command has, so it must be files.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l.in = w
	l.cmd.Stdin, l.cmd.Stdout, l.cmd.Stderr = r, &l.out, &l.err
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	l.began = time.Now()
	t.Cleanup(func() { _ = w.Close() })
	return l
}

// end stops the load and reads its report. What must never be, a wrong byte or a false end, fails the test here.
func (l *load) end(t *testing.T) Report {
	t.Helper()
	_ = l.in.Close()
	return l.wait(t)
}

func (l *load) wait(t *testing.T) Report {
	t.Helper()
	if err := l.cmd.Wait(); err != nil {
		t.Fatalf("load: %v\n%s%s", err, l.out.String(), l.err.String())
	}
	var r Report
	if err := json.Unmarshal(l.out.Bytes(), &r); err != nil {
		t.Fatalf("report %q: %v", l.out.String(), err)
	}
	t.Logf("%d connections in %.1fs, p50 %.1f ms, p99 %.1f ms, longest gap %d ms; failed %v; of %d long %d lost %v, longest silence %d ms",
		r.Tried, time.Since(l.began).Seconds(), r.P50, r.P99, r.Gap, r.Failed, r.Long, r.Lost, r.LostWhy, r.Silent)
	if r.Wrong+r.False > 0 {
		t.Errorf("%d connections with a wrong byte, %d cut ones that looked complete", r.Wrong, r.False)
	}
	return r
}

// without asserts that nothing was lost.
func (r Report) without(t *testing.T) {
	t.Helper()
	if r.Tried == 0 || r.Whole != r.Tried {
		t.Errorf("%d of %d new connections failed: %v", r.Tried-r.Whole, r.Tried, r.Failed)
	}
	r.withoutLost(t)
}

func (r Report) withoutLost(t *testing.T) {
	t.Helper()
	if r.Lost > 0 {
		t.Errorf("%d of %d long connections lost: %v", r.Lost, r.Long, r.LostWhy)
	}
}

// seen asks the server what it saw.
func (m *mesh) seen(t *testing.T) (s struct{ Accepted, Whole, Bytes, Wrong, False, Broken int64 }) {
	t.Helper()
	out := m.Run(t, "exec", "-n", "load", "deploy/server", "--", "curl", "-s", "-f", "http://127.0.0.1:9001/")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("server says %q: %v", out, err)
	}
	return s
}

// pods are the names of the pods with a label.
func (m *mesh) pods(t *testing.T, namespace, label string) []string {
	t.Helper()
	return strings.Fields(m.Run(t, "get", "pods", "-n", namespace, "-l", label, "-o", "jsonpath={.items[*].metadata.name}"))
}

// pod is the pod of a daemon set on a node, or the one with a label when node is "".
func (m *mesh) pod(t *testing.T, namespace, label, node string) string {
	t.Helper()
	var pod string
	localtest.Eventually(t, 20*time.Second, "a running pod "+label+" "+node, func() bool {
		out, err := m.Try("get", "pods", "-n", namespace, "-l", label, "-o", "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.phase}{\"\\n\"}{end}")
		if err != nil {
			return false
		}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) == 3 && (node == "" || f[1] == node) && f[2] == "Running" {
				pod = f[0]
				return true
			}
		}
		return false
	})
	return pod
}

func perSecond(n int) string { return "-rate=" + strconv.Itoa(n) }
