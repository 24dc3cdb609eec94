// Package interop proves that ambit and Istio's ztunnel are one mesh: the file that ZTUNNEL_BIN names runs on one node
// of a local cluster in place of ours, under our control plane and our node agent.
package interop

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/localtest"
	"github.com/ambit-mesh/ambit/local"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/test/lab"
	"github.com/ambit-mesh/ambit/test/lab/figures"
)

const (
	ourNode   = "node-2"
	theirNode = "node-3"
)

// world is the cluster of all tests here.
type world struct {
	*lab.Lab
	// ours runs on a node with our ztunnel, theirs on the node with Istio's. Both are servers, both can be clients.
	ours, theirs lab.Pod
	// plain and plainThere are in no mesh, on the same nodes.
	plain, plainThere lab.Pod
}

// way is a direction between the two: from a client under one ztunnel to a server under the other.
type way struct {
	name           string
	client, server lab.Pod
	source, target string // nodes
}

func (w *world) ways() []way {
	return []way{
		{"ours to theirs", w.ours, w.theirs, ourNode, theirNode},
		{"theirs to ours", w.theirs, w.ours, theirNode, ourNode},
	}
}

func TestMain(m *testing.M) { localtest.Main(m) }

func TestInterop(t *testing.T) {
	file := os.Getenv("ZTUNNEL_BIN")
	if file == "" {
		t.Skip("ZTUNNEL_BIN names no file: build Istio's ztunnel and set it (see docs/interoperability.md)")
	}
	for _, p := range local.Preflight(t.Context()) {
		t.Fatalf("this machine cannot run a local cluster: %s", p)
	}
	l, err := lab.Start(t.Context(), lab.Config{Nodes: 3, Bin: os.Getenv("AMBIT_BIN"), Foreign: file, On: []string{theirNode}, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{
		Lab:        l,
		ours:       lab.Pod{Namespace: "inter", Name: "ours", Node: ourNode},
		theirs:     lab.Pod{Namespace: "inter", Name: "theirs", Node: theirNode},
		plain:      lab.Pod{Namespace: "plain", Name: "plain", Node: ourNode},
		plainThere: lab.Pod{Namespace: "plain", Name: "plain-there", Node: theirNode},
	}
	w.apply(t, lab.Namespace("inter", true)+lab.Namespace("plain", false))
	if err := l.Start(t.Context(), w.ours, w.theirs, w.plain, w.plainThere); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		f    func(*testing.T, *world)
	}{
		{"tunnels carry identities both ways", tunnels},
		{"bytes arrive whole", bytesWhole},
		{"both write the same access log", sameLog},
		{"both count alike", sameMetrics},
		{"both show the same configuration", sameDump},
		{"names are resolved by either", names},
		{"HB-01 policies are enforced by either", policies},
		{"strict mode is enforced by either", strict},
		{"a policy cuts open connections at either", cuts},
		{"pods come and go", pods},
		{"either restarts", restarts},
		{"one takes over from the other", takeOver},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.f(t, w) }) {
			w.lastWords(t)
		}
	}
}

// lastWords shows what the ztunnels wrote last.
func (w *world) lastWords(t *testing.T) {
	for _, node := range []string{ourNode, theirNode} {
		lines := w.lines(t, node)
		t.Logf("%s:\n%s", node, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

func (w *world) apply(t *testing.T, yaml string) {
	t.Helper()
	if err := w.Apply(t.Context(), yaml); err != nil {
		t.Fatal(err)
	}
}

// ask makes one exchange from a pod.
func (w *world) ask(t *testing.T, from lab.Pod, to string) figures.Answer {
	t.Helper()
	var a figures.Answer
	if err := w.Exec(t.Context(), from, &a, lab.Load, "ask", "-to", to); err != nil {
		t.Fatal(err)
	}
	return a
}

// becomes asks until the outcome is the one wanted.
func (w *world) becomes(t *testing.T, want bool, from lab.Pod, to string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		a := w.ask(t, from, to)
		if a.Outcome == "ok" == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s to %s: %+v, want success: %v", from.Name, to, a, want)
		}
	}
}

// reached is what a pod's server has counted.
func (w *world) reached(t *testing.T, pod lab.Pod) figures.Server {
	t.Helper()
	var s figures.Server
	if err := w.Exec(t.Context(), pod, &s, lab.Load, "stats"); err != nil {
		t.Fatal(err)
	}
	return s
}

// lines of the log of a node's ztunnel.
func (w *world) lines(t *testing.T, node string, words ...string) []string {
	t.Helper()
	pod, err := w.Ztunnel(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := w.Lines(t.Context(), mesh.SystemNamespace, pod, words...)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// newLine waits for a line that was not there before.
func (w *world) newLine(t *testing.T, node string, before []string, words ...string) string {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		for _, line := range w.lines(t, node, words...) {
			if !slices.Contains(before, line) {
				return line
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s logged no line with %q", node, words)
		}
	}
}

// during collects the lines that each side's ztunnel writes about one exchange.
func (w *world) during(t *testing.T, y way, f func()) (source, target string) {
	t.Helper()
	const access = "\taccess\t"
	sourceBefore, targetBefore := w.lines(t, y.source, access), w.lines(t, y.target, access)
	f()
	return w.newLine(t, y.source, sourceBefore, access, `direction="outbound"`), w.newLine(t, y.target, targetBefore, access, `direction="inbound"`)
}

// within waits for an event.
func within(t *testing.T, d time.Duration, what string, happened func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for !happened(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", d, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
