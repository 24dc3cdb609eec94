package cniplugin_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeapi"
	"github.com/ambit-mesh/ambit/node/cniplugin"
)

// api runs an API server and leaves the plugin the way to it that an agent would.
func (h *host) api() *fakeapi.Server {
	h.t.Helper()
	s := fakeapi.Start(h.t)
	ca, err := os.ReadFile(s.CAFile)
	must(h.t, err)
	h.access(cniplugin.NewAccess(s.URL, ca, "one"))
	s.Put(fakeapi.Object{Metadata: fakeapi.Meta{Name: "default"}})
	s.Put(fakeapi.Object{Metadata: fakeapi.Meta{Name: "mesh", Labels: map[string]string{"istio.io/dataplane-mode": "ambient"}}})
	return s
}

func (h *host) access(a cniplugin.Access) {
	h.t.Helper()
	b, err := json.Marshal(a)
	must(h.t, err)
	must(h.t, os.WriteFile(filepath.Join(h.dir, cniplugin.Kubeconfig), b, 0o600))
}

func object(namespace, name string, labels map[string]string) fakeapi.Object {
	return fakeapi.Object{Metadata: fakeapi.Meta{Namespace: namespace, Name: name, UID: "u-" + name, Labels: labels}}
}

// CN-01: while the agent is away a pod of the mesh waits, and pods that are surely outside of it start.
func TestAgentAwayAsksTheAPIServer(t *testing.T) {
	h := newHost(t, "")
	s := h.api()
	mode := func(v string) map[string]string { return map[string]string{"istio.io/dataplane-mode": v} }
	for _, c := range []struct {
		name   string
		pod    fakeapi.Object
		before func()
		starts bool
		why    string
	}{
		{name: "outside", pod: object("default", "outside", nil), starts: true},
		{name: "opted out", pod: object("mesh", "out", mode("none")), starts: true},
		{name: "namespace in the mesh", pod: object("mesh", "web", nil), why: "it is of the mesh: namespace label"},
		{name: "pod in the mesh", pod: object("default", "web", mode("ambient")), why: "it is of the mesh: pod label"},
		{name: "another pod of that name", pod: fakeapi.Object{Metadata: fakeapi.Meta{Namespace: "default", Name: "stale", UID: "old"}}, why: `another pod of that name, with UID "old"`},
		{name: "a pod of a file on the node", pod: fakeapi.Object{Metadata: fakeapi.Meta{
			Namespace: "default", Name: "static", UID: "m", Annotations: map[string]string{"kubernetes.io/config.mirror": "u-static"},
		}}, starts: true},
		{name: "namespace not found", pod: object("nowhere", "lost", nil), why: "answers 404"},
		{name: "forbidden", pod: object("default", "secret", nil), why: "answers 403: no", before: func() {
			s.Hook(func(w http.ResponseWriter, _ *http.Request) bool {
				http.Error(w, "no", http.StatusForbidden)
				return true
			})
		}},
		{name: "a token that has ended", pod: object("default", "late", nil), why: "the token that the agent left is no longer valid", before: func() {
			s.Hook(func(w http.ResponseWriter, _ *http.Request) bool {
				http.Error(w, "no", http.StatusUnauthorized)
				return true
			})
		}},
		{name: "cut answer", pod: object("default", "cut", nil), why: "not understood", before: func() {
			s.Hook(func(w http.ResponseWriter, _ *http.Request) bool {
				_, _ = w.Write([]byte(`{"metadata":{"name":"cut","namespace":"default","uid":"u-cut"},`))
				return true
			})
		}},
		{name: "an answer about something else", pod: object("default", "other", nil), why: "another pod", before: func() {
			s.Hook(func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write([]byte(`{}`)); return true })
		}},
		{name: "a redirect", pod: object("default", "away", nil), why: "answers 302", before: func() {
			s.Hook(func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
				return true
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.Put(c.pod)
			s.Hook(nil)
			if c.before != nil {
				c.before()
			}
			got, err := h.add(h.pod(c.pod.Metadata.Namespace, c.pod.Metadata.Name))
			switch {
			case c.starts && (err != nil || got != addresses):
				t.Errorf("CN-01: ADD = %q, %v; want that it starts", got, err)
			case !c.starts && (err == nil || !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), "waits for the mesh's node agent")):
				t.Errorf("CN-01: ADD = %q, %v; want that it waits: %s", got, err, c.why)
			}
		})
	}
	for _, r := range s.Requests() {
		if !strings.HasSuffix(r, " Bearer one") {
			t.Errorf("asked without the token: %s", r)
		}
	}
}

// CN-01: neither the agent nor the API server can be asked, or the agent itself says no.
func TestDoubtKeepsAPodFromStarting(t *testing.T) {
	h := newHost(t, "")
	s := h.api()
	s.Put(object("default", "outside", nil))
	p := h.pod("default", "outside")
	ca, err := os.ReadFile(s.CAFile)
	must(t, err)
	for name, a := range map[string]cniplugin.Access{
		"plain HTTP":      cniplugin.NewAccess(strings.Replace(s.URL, "https", "http", 1), ca, "one"),
		"nobody's CA":     cniplugin.NewAccess(s.URL, nil, "one"),
		"no CA":           cniplugin.NewAccess(s.URL, []byte("x"), "one"),
		"a token of two":  cniplugin.NewAccess(s.URL, ca, "one\r\nX: y"),
		"nobody there":    cniplugin.NewAccess("https://127.0.0.1:1", ca, "one"),
		"nothing at all":  {},
		"no such address": cniplugin.NewAccess("https://", ca, "one"),
	} {
		h.access(a)
		if got, err := h.add(p); err == nil || !strings.Contains(err.Error(), "whether the pod is of the mesh is not known") {
			t.Errorf("CN-01: %s: ADD = %q, %v", name, got, err)
		}
	}
	if n := len(s.Requests()); n > 0 {
		t.Errorf("%d requests came through", n)
	}
	must(t, os.Remove(filepath.Join(h.dir, cniplugin.Kubeconfig)))
	if got, err := h.add(p); err == nil {
		t.Errorf("CN-01: without a way to the API server: %q, %v", got, err)
	}
	h.access(cniplugin.NewAccess(s.URL, ca, "one"))
	_, stop := h.agent(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no ztunnel connection", 500) })
	if got, err := h.add(p); err == nil || !strings.Contains(err.Error(), "500 no ztunnel connection") {
		t.Errorf("CN-01: the agent's no is not taken: %q, %v", got, err)
	}
	stop()
	if got, err := h.add(p); err != nil {
		t.Errorf("CN-01: with everything right: %q, %v", got, err)
	}
}

func TestSelectorsDecideWhileTheAgentIsAway(t *testing.T) {
	h := newHost(t, `,"enablement_selectors":[{"namespaceSelector":{"matchLabels":{"team":"a"}}}]`)
	s := h.api()
	s.Put(fakeapi.Object{Metadata: fakeapi.Meta{Name: "a", Labels: map[string]string{"team": "a"}}})
	s.Put(object("a", "web", nil))
	s.Put(object("mesh", "web", nil))
	if got, err := h.add(h.pod("a", "web")); err == nil || !strings.Contains(err.Error(), "enablement selector 1") {
		t.Errorf("a pod that a selector chooses: %q, %v", got, err)
	}
	if got, err := h.add(h.pod("mesh", "web")); err != nil {
		t.Errorf("a pod that none chooses: %q, %v", got, err)
	}
	bad := newHost(t, `,"enablement_selectors":[{"podSelector":{"matchExpressions":[{"key":"a","operator":"Like"}]}}]`)
	if got, err := bad.add(bad.pod("default", "x")); err == nil {
		t.Errorf("selectors that nobody understands: %q", got)
	}
}

// One call waits until the agent is back: a runtime that is told no asks again only after 10 s or more.
func TestACallWaitsForTheAgent(t *testing.T) {
	for _, conf := range []string{`,"ambit_agent_wait_seconds":20`, `,"enable_ambient_detection_retry":true`} {
		h := newHost(t, conf)
		s := h.api()
		s.Put(object("mesh", "web", nil))
		asked := make(chan struct{}, 100)
		s.Hook(func(http.ResponseWriter, *http.Request) bool { asked <- struct{}{}; return false })
		done := make(chan error, 1)
		go func() {
			_, err := h.add(h.pod("mesh", "web"))
			done <- err
		}()
		<-asked // the pod: the agent could not be asked
		back := time.Now()
		h.agent(ok)
		select {
		case err := <-done:
			must(t, err)
			t.Logf("%s: it starts %v after the agent is back", conf, time.Since(back))
		case <-time.After(20 * time.Second):
			t.Fatal("the call does not end though the agent is back")
		}
	}
}

// What a call had to say is in a file on the node, which does not grow for ever, and goes to the agent.
func TestLogs(t *testing.T) {
	h := newHost(t, `,"plugin_log_level":"debug"`)
	h.agent(ok)
	lines := h.listen(cniplugin.LogSocket)
	file := filepath.Join(h.dir, cniplugin.LogFile)
	must(t, os.WriteFile(file, make([]byte, 10<<20), 0o600))
	for range 2 {
		_, err := h.add(h.pod("default", "web"))
		must(t, err)
	}
	b, err := os.ReadFile(file)
	must(t, err)
	if n := strings.Count(string(b), `"msg":"pod may start","pod":"default/web"`); n != 2 || len(b) > 1000 {
		t.Errorf("log file of %d bytes has %d lines of the call:\n%.1000s", len(b), n, b)
	}
	if st, err := os.Stat(file + ".1"); err != nil || st.Size() < 10<<20 {
		t.Errorf("the log before is gone: %v", err)
	}
	var sent []string
	_, body, _ := strings.Cut(<-lines, "POST unix/log ")
	if err := json.Unmarshal([]byte(body), &sent); err != nil || len(sent) != 1 || !strings.Contains(sent[0], "pod may start") {
		t.Errorf("the agent was sent %q: %v", body, err)
	}
	// A log that cannot be written keeps nobody from starting.
	must(t, os.Remove(file))
	must(t, os.Symlink("/dev/full", file))
	_, err = h.add(h.pod("default", "web"))
	must(t, err)
}
