package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

type env struct {
	*testing.T
	store *store.Store
	url   string
}

func start(t *testing.T) env {
	t.Helper()
	s, err := store.Open(store.Config{Objects: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{"default", "istio-system"} {
		if _, err := s.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}); err != nil {
			t.Fatal(err)
		}
	}
	srv := New(Config{Store: s, Logs: func(_ context.Context, pod *corev1.Pod, o LogOptions, w io.Writer) error {
		_, err := io.WriteString(w, pod.Name+" "+o.Container+" "+strconv.FormatInt(o.TailLines, 10)+"\n")
		return err
	}})
	mux := http.NewServeMux()
	mux.Handle("/", srv.Trusted())
	mux.Handle("/net/", http.StripPrefix("/net", srv.Authenticated(func(token string) (string, error) {
		if user, ok := strings.CutPrefix(token, "good:"); ok {
			return "system:serviceaccount:" + user, nil
		}
		return "", errors.New("bad token")
	})))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return env{t, s, server.URL}
}

type headers map[string]string

func (e env) do(method, path, body string, h headers) (int, string) {
	e.Helper()
	req, err := http.NewRequestWithContext(e.Context(), method, e.url+path, strings.NewReader(body))
	if err != nil {
		e.Fatal(err)
	}
	for k, v := range h {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		e.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		e.Fatal(err)
	}
	return res.StatusCode, string(data)
}

func (e env) pod(name, node string, labels map[string]string) *corev1.Pod {
	e.Helper()
	o, err := e.store.Create(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: labels},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main"}}},
	})
	if err != nil {
		e.Fatal(err)
	}
	return o.(*corev1.Pod)
}

func TestListBySelectors(t *testing.T) {
	e := start(t)
	e.pod("a", "n1", map[string]string{"app": "x"})
	e.pod("b", "n2", map[string]string{"app": "x"})
	e.pod("c", "n1", map[string]string{"app": "y"})
	for query, want := range map[string]string{
		"":                                       "abc",
		"?labelSelector=app%3Dx":                 "ab",
		"?labelSelector=app+in+(y)":              "c",
		"?fieldSelector=spec.nodeName%3Dn1":      "ac",
		"?fieldSelector=metadata.name%3Db":       "b",
		"?fieldSelector=status.phase!%3DPending": "",
	} {
		code, body := e.do("GET", "/api/v1/pods"+query, "", nil)
		var list corev1.PodList
		if err := json.Unmarshal([]byte(body), &list); err != nil || code != 200 || list.Kind != "PodList" || list.ResourceVersion == "" {
			t.Fatalf("%s: %d %v %s", query, code, err, body)
		}
		got := ""
		for _, p := range list.Items {
			got += p.Name
		}
		if got != want {
			t.Errorf("pods%s = %q, want %q", query, got, want)
		}
	}
	if code, _ := e.do("GET", "/api/v1/pods?fieldSelector=spec.hostname%3Dx", "", nil); code != 400 {
		t.Errorf("a field nobody selects by: %d, want 400", code)
	}
}

type frame struct {
	Type   string
	Object struct {
		Metadata metav1.ObjectMeta
		Code     int
	}
}

// watch opens a watch and gives a function that reads its next frame.
func (e env) watch(query string) func() frame {
	e.Helper()
	req, err := http.NewRequestWithContext(e.Context(), "GET", e.url+"/api/v1/namespaces/default/pods?watch=true&"+query, nil)
	if err != nil {
		e.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	return func() frame {
		e.Helper()
		var f frame
		if !lines.Scan() {
			return frame{Type: "END"}
		}
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			e.Fatalf("%v: %s", err, lines.Bytes())
		}
		return f
	}
}

func TestWatch(t *testing.T) {
	e := start(t)
	e.pod("a", "n1", map[string]string{"app": "x"})
	next := e.watch("labelSelector=app%3Dx")
	expect := func(kind, name string) {
		t.Helper()
		if f := next(); f.Type != kind || f.Object.Metadata.Name != name {
			t.Fatalf("frame %s %s, want %s %s", f.Type, f.Object.Metadata.Name, kind, name)
		}
	}
	expect("ADDED", "a")
	e.pod("other", "n1", nil)
	relabel := func(value string) {
		t.Helper()
		if _, err := store.Update(e.store, "default", "a", func(p *corev1.Pod) error { p.Labels["app"] = value; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	relabel("y") // ceases to match
	expect("DELETED", "a")
	relabel("x")
	expect("ADDED", "a")
	if code, body := e.do("PATCH", "/api/v1/namespaces/default/pods/a", `{"metadata":{"annotations":{"k":"v"}}}`, headers{"Content-Type": "application/merge-patch+json"}); code != 200 {
		t.Fatal(code, body)
	}
	expect("MODIFIED", "a")
	if code, body := e.do("DELETE", "/api/v1/namespaces/default/pods/a?gracePeriodSeconds=0", "", nil); code != 200 {
		t.Fatal(code, body)
	}
	expect("DELETED", "a")
}

func TestWatchFromARevision(t *testing.T) {
	e := start(t)
	a := e.pod("a", "n1", nil)
	e.pod("b", "n1", nil)
	next := e.watch("timeoutSeconds=1&resourceVersion=" + a.ResourceVersion)
	if f := next(); f.Type != "ADDED" || f.Object.Metadata.Name != "b" {
		t.Fatalf("first frame after a: %+v", f)
	}
	if f := next(); f.Type != "END" {
		t.Fatalf("after timeoutSeconds: %+v, want the end", f)
	}
	for i := range 2000 { // far beyond what the store remembers
		if _, err := store.Update(e.store, "default", "b", func(p *corev1.Pod) error {
			p.Labels = map[string]string{"i": strconv.Itoa(i)}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if f := e.watch("resourceVersion=" + a.ResourceVersion)(); f.Type != "ERROR" || f.Object.Code != 410 {
		t.Fatalf("watch from a forgotten revision: %+v, want 410", f)
	}
	next = e.watch("sendInitialEvents=true&allowWatchBookmarks=true")
	for _, want := range []string{"ADDED", "ADDED", "BOOKMARK"} {
		if f := next(); f.Type != want {
			t.Fatalf("initial events: %+v, want %s", f, want)
		}
	}
}

func TestCreateUpdateAndConflict(t *testing.T) {
	e := start(t)
	const path = "/api/v1/namespaces/default/configmaps"
	code, body := e.do("POST", path, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"1"}}`, nil)
	if code != 201 {
		t.Fatal(code, body)
	}
	if code, again := e.do("POST", path, body, nil); code != 409 || !strings.Contains(again, "AlreadyExists") {
		t.Errorf("creating twice: %d %s", code, again)
	}
	if code, body := e.do("PUT", path+"/c", strings.Replace(body, `"a":"1"`, `"a":"2"`, 1), nil); code != 200 {
		t.Fatal(code, body)
	}
	if code, stale := e.do("PUT", path+"/c", body, nil); code != 409 {
		t.Errorf("updating by an old resourceVersion: %d %s", code, stale)
	}
	if code, body := e.do("POST", path, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d"},"dta":{}}`, nil); code != 422 || !strings.Contains(body, "dta") {
		t.Errorf("unknown field: %d %s", code, body)
	}
	if code, body := e.do("GET", path+"/none", "", nil); code != 404 || !strings.Contains(body, "NotFound") {
		t.Errorf("missing: %d %s", code, body)
	}
}

func TestStatusIsSeparate(t *testing.T) {
	e := start(t)
	e.pod("a", "n1", nil)
	const path = "/api/v1/namespaces/default/pods/a"
	patch := `{"status":{"phase":"Running"}}`
	h := headers{"Content-Type": "application/merge-patch+json"}
	if code, body := e.do("PATCH", path, patch, h); code != 200 || strings.Contains(body, `"phase":"Running"`) {
		t.Errorf("status through the object itself: %d %s", code, body)
	}
	if code, body := e.do("PATCH", path+"/status", patch, h); code != 200 || !strings.Contains(body, `"phase":"Running"`) {
		t.Errorf("status through its subresource: %d %s", code, body)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	e := start(t)
	for _, ns := range []string{"default", "istio-system"} {
		if _, err := e.store.Create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: ns}}); err != nil {
			t.Fatal(err)
		}
	}
	const app, system = "Bearer good:default:app", "Bearer good:istio-system:istio-cni"
	cm := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}`
	for _, c := range []struct {
		name, token, method, path, body string
		want                            int
	}{
		{"no token", "", "GET", "/api/v1/pods", "", 401},
		{"bad token", "Bearer bad", "GET", "/api/v1/pods", "", 401},
		{"an app reads pods", app, "GET", "/api/v1/pods", "", 200},
		{"an app writes", app, "POST", "/api/v1/namespaces/default/configmaps", cm, 403},
		{"the system writes", system, "POST", "/api/v1/namespaces/default/configmaps", cm, 201},
		{"an app reads its namespace's secret", app, "GET", "/api/v1/namespaces/default/secrets/s", "", 403},
		{"an app lists secrets", app, "GET", "/api/v1/secrets", "", 403},
		{"the system reads its own secret", system, "GET", "/api/v1/namespaces/istio-system/secrets/s", "", 200},
		{"the system reads another's secret", system, "GET", "/api/v1/namespaces/default/secrets/s", "", 403},
		{"the system lists all secrets", system, "GET", "/api/v1/secrets", "", 403},
		{"the system applies files", system, "POST", "/ambit/v1/apply", cm, 403},
		{"an app discovers", app, "GET", "/apis", "", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := headers{}
			if c.token != "" {
				h["Authorization"] = c.token
			}
			if code, body := (env{t, e.store, e.url}).do(c.method, "/net"+c.path, c.body, h); code != c.want {
				t.Errorf("%d, want %d: %s", code, c.want, body)
			}
		})
	}
}

func TestApplyAnswersPerObjectOrNamesTheLine(t *testing.T) {
	e := start(t)
	cm := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"
	for _, want := range []string{"created", "unchanged"} {
		if code, body := e.do("POST", "/ambit/v1/apply?file=c.yaml", cm, nil); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%d %s, want %s", code, body, want)
		}
	}
	if code, body := e.do("POST", "/ambit/v1/apply?file=c.yaml", cm+"---\n"+strings.Replace(cm, "\ndata", "\ndat", 1), nil); code != 400 || !strings.Contains(body, "c.yaml:9") {
		t.Errorf("%d %s, want 400 naming c.yaml:9", code, body)
	}
}

func TestPodLog(t *testing.T) {
	e := start(t)
	e.pod("a", "n1", nil)
	if code, body := e.do("GET", "/api/v1/namespaces/default/pods/a/log?tailLines=5", "", nil); code != 200 || body != "a main 5\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, body := e.do("GET", "/api/v1/namespaces/default/pods/a/log?container=none", "", nil); code != 400 {
		t.Errorf("unknown container: %d %q", code, body)
	}
}

func TestDiscovery(t *testing.T) {
	e := start(t)
	for path, want := range map[string]string{
		"/api": `"v1"`, "/apis": "networking.istio.io", "/api/v1": `"namespaces"`, "/version": "gitVersion",
		"/apis/networking.istio.io": "preferredVersion", "/apis/networking.istio.io/v1beta1": "virtualservices",
	} {
		if code, body := e.do("GET", path, "", nil); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _ := e.do("GET", "/apis/none/v1", "", nil); code != 404 {
		t.Errorf("unknown group: %d", code)
	}
}

func FuzzSelector(f *testing.F) {
	f.Add("app=x,b in (c,d),!e", "spec.nodeName=n,metadata.name!=x")
	f.Fuzz(func(t *testing.T, l, fields string) {
		s, err := parseSelector(l, fields)
		if err == nil {
			s.matches(&corev1.Pod{})
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add("/api/v1/namespaces/default/pods/a/log")
	f.Add("/apis/networking.istio.io/v1/namespaces/x/virtualservices")
	s := New(Config{})
	f.Fuzz(func(t *testing.T, path string) {
		q, err := s.path(path)
		if err == nil && (q.kind.Kind == "" || (!q.kind.Namespaced && q.namespace != "")) {
			t.Errorf("%q is read as %+v", path, q)
		}
	})
}
