package interop

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/test/lab"
)

// fate is something that can happen to a connection. Whoever's ztunnel reports it, the words are the same.
type fate struct {
	name string
	// do it, from the client of a way, and maybe undo it afterwards.
	do func(t *testing.T, w *world, y way)
	// source and target: how many lines each side's ztunnel writes.
	source, target int
}

func fates() []fate {
	asks := func(to func(w *world, t *testing.T, y way) string) func(*testing.T, *world, way) {
		return func(t *testing.T, w *world, y way) { w.ask(t, y.client, to(w, t, y)) }
	}
	return []fate{
		{"by service", asks(func(_ *world, _ *testing.T, y way) string { return y.server.Name + ".inter:9000" }), 1, 1},
		{"by address", asks(func(w *world, t *testing.T, y way) string { return w.ip(t, y.server) + ":9000" }), 1, 1},
		{"no listener", asks(func(w *world, t *testing.T, y way) string { return w.ip(t, y.server) + ":9999" }), 1, 1},
		{"out of the mesh", asks(func(w *world, t *testing.T, y way) string { return w.ip(t, w.plainOf(y)) + ":9000" }), 1, 0},
		{"out of the mesh by service", asks(func(w *world, _ *testing.T, y way) string { return w.plainOf(y).Name + ".plain:9000" }), 1, 0},
		{"out of the mesh, no listener", asks(func(w *world, t *testing.T, y way) string { return w.ip(t, w.plainOf(y)) + ":9999" }), 1, 0},
		{"a port that the service has not", asks(func(w *world, t *testing.T, y way) string { return w.vip(t, y.server) + ":9999" }), 1, 0},
		{"a service without endpoints", asks(func(*world, *testing.T, way) string { return "empty.inter:9000" }), 1, 0},
		{"into the mesh", func(t *testing.T, w *world, y way) { w.ask(t, w.plain, w.ip(t, y.server)+":9000") }, 0, 1},
		{"into the mesh, no listener", func(t *testing.T, w *world, y way) { w.ask(t, w.plain, w.ip(t, y.server)+":9999") }, 0, 1},
		{"denied", func(t *testing.T, w *world, y way) {
			w.refuses(t, y, "DENY", port9000)
			w.ask(t, y.client, y.server.Name+".inter:9000")
		}, 1, 1},
		{"denied without identity", func(t *testing.T, w *world, y way) {
			w.refuses(t, y, "DENY", port9000)
			w.ask(t, w.plain, w.ip(t, y.server)+":9000")
		}, 0, 1},
		{"not allowed", func(t *testing.T, w *world, y way) {
			w.refuses(t, y, "ALLOW", "[]")
			w.ask(t, y.client, y.server.Name+".inter:9000")
		}, 1, 1},
	}
}

const port9000 = "[{to: [{operation: {ports: ['9000']}}]}]"

// refuses puts a policy on the server until the test ends.
func (w *world) refuses(t *testing.T, y way, action, rules string) {
	t.Helper()
	name := "words-" + y.server.Name
	w.apply(t, policy(name, y.server.Name, action, rules))
	w.withdraw(t, "authorizationpolicy", name)
	w.enforced(t, y.target, name)
}

// sameLog: what one writes about a connection, the other writes when the parts are exchanged: same level, message, keys in
// the same order, values, and errors.
func sameLog(t *testing.T, w *world) {
	w.apply(t, "apiVersion: v1\nkind: Service\nmetadata: {name: empty, namespace: inter}\nspec: {selector: {app: nobody}, ports: [{port: 9000}]}\n")
	w.becomes(t, true, w.plain, w.ip(t, w.ours)+":9000")
	for _, format := range []string{"text", "json"} {
		w.logs(t, format)
		for _, f := range fates() {
			t.Run(format+" "+f.name, func(t *testing.T) {
				wrote := map[string][2][]string{}
				for _, y := range w.ways() {
					t.Run(y.name, func(t *testing.T) { wrote[y.name] = w.reported(t, y, f) })
				}
				if t.Failed() {
					return
				}
				ours, theirs := wrote["ours to theirs"], wrote["theirs to ours"]
				// Our line as source stands beside theirs as source, and so for the target.
				if d := cmp.Diff(theirs[0], ours[0]); d != "" {
					t.Errorf("as source, -theirs +ours:\n%s", d)
				}
				if d := cmp.Diff(ours[1], theirs[1]); d != "" {
					t.Errorf("as target, +theirs -ours:\n%s", d)
				}
			})
		}
	}
	w.logs(t, "text")
}

// logs gives both daemon sets a log format.
func (w *world) logs(t *testing.T, format string) {
	t.Helper()
	sets, _ := kinds.Find("daemonsets")
	for _, name := range []string{"ztunnel", "foreign-ztunnel"} {
		o, err := w.Get(t.Context(), sets, "istio-system", name)
		if err != nil {
			t.Fatal(err)
		}
		y, err := kinds.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		text := regexp.MustCompile(`(name: LOG_FORMAT\s+value: )\w+`).ReplaceAllString(string(y), "${1}"+format)
		if text == string(y) {
			continue
		}
		w.apply(t, text)
		if _, err := w.Local(t.Context(), "rollout", "status", "-n", "istio-system", "ds/"+name); err != nil {
			t.Fatal(err)
		}
	}
	w.settles(t)
}

// reported are the access lines of source and target about one fate, without what differs each time.
func (w *world) reported(t *testing.T, y way, f fate) [2][]string {
	t.Helper()
	nodes, counts := [2]string{y.source, y.target}, [2]int{f.source, f.target}
	direction := [2]string{"outbound", "inbound"}
	var before [2][]string
	for i, node := range nodes {
		before[i] = w.lines(t, node, direction[i], "access")
	}
	f.do(t, w, y)
	var got [2][]string
	for i, node := range nodes {
		within(t, 8*time.Second, fmt.Sprintf("%d lines %s of %s", counts[i], direction[i], node), func(context.Context) bool {
			got[i] = nil
			for _, line := range w.lines(t, node, direction[i], "access") {
				if !slices.Contains(before[i], line) {
					got[i] = append(got[i], w.neutral(t, y, line))
				}
			}
			return len(got[i]) >= counts[i]
		})
		slices.Sort(got[i])
	}
	return got
}

// neutral takes out of a line when it was, how long it took, which ports the kernel chose, and who is who.
func (w *world) neutral(t *testing.T, y way, line string) string {
	t.Helper()
	line = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`).ReplaceAllString(line, "TIME")
	line = regexp.MustCompile(`duration(="|":")\d+ms`).ReplaceAllString(line, `duration${1}Nms`)
	line = regexp.MustCompile(`(src\.addr"?[=:]"?[\d.]+):\d+`).ReplaceAllString(line, "${1}:PORT")
	for addr, name := range map[string]string{
		w.ip(t, y.client): "CLIENT", w.ip(t, y.server): "SERVER", w.vip(t, y.server): "VIP", w.ip(t, w.plain): "PLAIN", w.ip(t, w.plainThere): "PLAIN",
	} {
		line = regexp.MustCompile(regexp.QuoteMeta(addr)+`\b`).ReplaceAllString(line, name)
	}
	for _, r := range []struct{ from, to string }{
		{"words-" + y.server.Name, "POLICY"},
		{w.plainOf(y).Name + ".plain", "plain.plain"},
		{`"` + w.plainOf(y).Name + `"`, `"plain"`},
		{"sa/" + w.plainOf(y).Name, "sa/plain"},
		{"/sa/" + y.client.Name, "/sa/CLIENT"},
		{"/sa/" + y.server.Name, "/sa/SERVER"},
		{`"` + y.client.Name, `"CLIENT`},
		{`"` + y.server.Name, `"SERVER`},
	} {
		line = strings.ReplaceAll(line, r.from, r.to)
	}
	return strings.ReplaceAll(more(line), "\t", "  ")
}

// more takes out of our lines what we tell besides: which policy decided and why, whose address refused a connection,
// which endpoints there are that are not healthy.
func more(line string) string {
	for _, r := range []struct{ from, to string }{
		{`[ ,]"?policy"?[=:]"[^"]*"`, ""},
		{`[ ,]"?why"?[=:]"(?:[^"\\]|\\.)*"`, ""},
		{`(connection failed|io error): [^"]*[Rr]efused[^"]*`, "REFUSED"},
		{`(no healthy upstream: [^ "]+:\d+)[^"]*`, "$1"},
	} {
		line = regexp.MustCompile(r.from).ReplaceAllString(line, r.to)
	}
	return line
}

// plainOf is the pod that is in no mesh, on the server's node.
func (w *world) plainOf(y way) lab.Pod {
	if y.target == ourNode {
		return w.plain
	}
	return w.plainThere
}

func (w *world) ip(t *testing.T, p lab.Pod) string {
	t.Helper()
	k, _ := kinds.Find("pods")
	o, err := w.Get(t.Context(), k, p.Namespace, p.Name)
	if err != nil {
		t.Fatal(err)
	}
	return o.(*corev1.Pod).Status.PodIP
}

func (w *world) vip(t *testing.T, p lab.Pod) string {
	t.Helper()
	k, _ := kinds.Find("services")
	o, err := w.Get(t.Context(), k, p.Namespace, p.Name)
	if err != nil {
		t.Fatal(err)
	}
	return o.(*corev1.Service).Spec.ClusterIP
}
