package interop

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/test/lab"
	"github.com/ambit-mesh/ambit/test/lab/figures"
)

func policy(name, server, action, rules string) string {
	return fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s, namespace: inter}
spec:
  selector: {matchLabels: {app: %s}}
  action: %s
  rules: %s
---
`, name, server, action, rules)
}

// withdraw deletes a policy when the test ends.
func (w *world) withdraw(t *testing.T, kind, name string) {
	t.Helper()
	t.Cleanup(func() {
		if _, err := w.Local(context.WithoutCancel(t.Context()), "delete", kind, "-n", "inter", name); err != nil {
			t.Error(err)
		}
	})
}

// policies: whoever is refused reaches nothing: no connection and no byte; and both sides' logs say why.
func policies(t *testing.T, w *world) {
	for _, y := range w.ways() {
		principal := "cluster.local/ns/inter/sa/" + y.client.Name
		for _, tc := range []struct {
			name, action, rules, says string
			allowed                   bool
		}{
			{"deny by principal", "DENY", "[{from: [{source: {principals: [" + principal + "]}}]}]", "explicitly denied by: inter/%s", false},
			{"deny by namespace and port", "DENY", "[{from: [{source: {namespaces: [inter]}}], to: [{operation: {ports: ['9000']}}]}]", "explicitly denied by: inter/%s", false},
			{"allow others", "ALLOW", "[{from: [{source: {principals: [cluster.local/ns/inter/sa/nobody]}}]}]", "allow policies exist, but none allowed", false},
			{"allow nothing", "ALLOW", "[]", "allow policies exist, but none allowed", false},
			{"allow by principal", "ALLOW", "[{from: [{source: {principals: [" + principal + "]}}]}]", "", true},
			{"deny another port", "DENY", "[{to: [{operation: {ports: ['1']}}]}]", "", true},
			{"allow by what is at another layer", "ALLOW", "[{to: [{operation: {methods: [GET]}}]}]", "allow policies exist, but none allowed", false},
		} {
			t.Run(y.name+" "+tc.name, func(t *testing.T) {
				name := strings.ReplaceAll(tc.name, " ", "-")
				w.apply(t, policy(name, y.server.Name, tc.action, tc.rules))
				w.withdraw(t, "authorizationpolicy", name)
				to := y.server.Name + ".inter:9000"
				w.enforced(t, y.target, name)
				w.becomes(t, tc.allowed, y.client, to)
				if tc.allowed {
					return
				}
				before := w.reached(t, y.server)
				source, target := w.during(t, y, func() {
					if a := w.ask(t, y.client, to); a.Outcome == "ok" {
						t.Errorf("not refused: %+v", a)
					}
				})
				if after := w.reached(t, y.server); after.Conns != before.Conns || after.Bytes != before.Bytes {
					t.Errorf("the server was reached: %+v before, %+v after", before, after)
				}
				says := tc.says
				if strings.Contains(says, "%s") {
					says = fmt.Sprintf(says, name)
				}
				if !strings.Contains(target, "connection closed due to policy rejection: "+says) {
					t.Errorf("the server's ztunnel says %s", target)
				}
				if !strings.Contains(source, "http status: 401 Unauthorized") {
					t.Errorf("the client's ztunnel says %s", source)
				}
			})
		}
	}
}

// enforced waits until a node's ztunnel has a policy.
func (w *world) enforced(t *testing.T, node, name string) {
	t.Helper()
	within(t, 5*time.Second, node+" has policy "+name, func(context.Context) bool {
		for _, p := range w.dump(t, node).Policies {
			if p.Name == name {
				return true
			}
		}
		return false
	})
}

// strict: who has no certificate is refused by either, even on the same node, and reaches nothing.
func strict(t *testing.T, w *world) {
	servers := []lab.Pod{w.ours, w.theirs}
	for _, s := range servers {
		for _, p := range []lab.Pod{w.plain, w.plainThere} {
			w.becomes(t, true, p, s.Name+".inter:9000")
		}
	}
	w.apply(t, "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: inter}\nspec: {mtls: {mode: STRICT}}\n")
	w.withdraw(t, "peerauthentication", "default")
	for _, s := range servers {
		for _, p := range []lab.Pod{w.plain, w.plainThere} {
			t.Run(p.Name+" to "+s.Name, func(t *testing.T) {
				w.becomes(t, false, p, s.Name+".inter:9000")
				before := w.reached(t, s)
				a := w.ask(t, p, s.Name+".inter:9000")
				if after := w.reached(t, s); a.Outcome == "ok" || after.Conns != before.Conns || after.Bytes != before.Bytes {
					t.Errorf("%+v; the server had %+v, has %+v", a, before, after)
				}
			})
		}
	}
	for _, y := range w.ways() {
		if a := w.ask(t, y.client, y.server.Name+":9000"); a.Outcome != "ok" {
			t.Errorf("%s: %+v", y.name, a)
		}
	}
}

// cuts: a connection that a new policy denies ends at once, whoever enforces it. Istio's ztunnel judges open connections
// by the policies that selected the workload when they began, so one that selects workloads cuts only at ours.
func cuts(t *testing.T, w *world) {
	for _, y := range w.ways() {
		for _, selected := range []bool{false, true} {
			if selected && y.target == theirNode {
				continue
			}
			t.Run(fmt.Sprintf("%s, selecting %v", y.name, selected), func(t *testing.T) {
				yaml := policy("cut", y.server.Name, "DENY", "[{from: [{source: {principals: [cluster.local/ns/inter/sa/"+y.client.Name+"]}}]}]")
				if !selected {
					yaml = strings.Replace(yaml, "  selector: {matchLabels: {app: "+y.server.Name+"}}\n", "", 1)
				}
				w.cutsAndComesBack(t, y, yaml)
			})
		}
	}
}

func (w *world) cutsAndComesBack(t *testing.T, y way, yaml string) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	watcher, err := w.Begin(ctx, y.client, lab.Load, "watch", "-to", y.server.Name+".inter:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	seen := map[string]figures.Event{}
	until := func(whats ...string) {
		t.Helper()
		for _, what := range whats {
			for seen[what].At.IsZero() {
				var e figures.Event
				if err := watcher.Next(&e); err != nil {
					t.Fatalf("waiting for %s, saw %v: %v", what, seen, err)
				}
				seen[e.What] = e
			}
		}
	}
	until("open", "allowed")
	clear(seen)
	start := time.Now()
	w.apply(t, yaml)
	withdrawn := false
	defer func() {
		if !withdrawn {
			w.withdraw(t, "authorizationpolicy", "cut")
		}
	}()
	until("cut", "refused")
	t.Logf("cut after %v, refused after %v", seen["cut"].At.Sub(start), seen["refused"].At.Sub(start))
	for _, what := range []string{"cut", "refused"} {
		if took := seen[what].At.Sub(start); took > 2*time.Second {
			t.Errorf("%s after %v", what, took)
		}
	}
	if len(w.lines(t, y.target, "connection closed due to policy change")) == 0 {
		t.Error("the server's ztunnel does not say that a policy change closed the connection")
	}
	clear(seen)
	if _, err := w.Local(t.Context(), "delete", "authorizationpolicy", "-n", "inter", "cut"); err != nil {
		t.Fatal(err)
	}
	withdrawn = true
	until("open", "allowed")
}
