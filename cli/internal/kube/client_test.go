package kube

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
)

func kindOf(t *testing.T, word string) kinds.Kind {
	t.Helper()
	k, ok := kinds.Find(word)
	if !ok {
		t.Fatalf("no kind %s", word)
	}
	return k
}

// objectServer is an API server with lists in pages, kinds of other versions, objects that nobody can read, and refusals.
func objectServer(t *testing.T) *Client {
	t.Helper()
	answer := func(w http.ResponseWriter, code int, body string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
	status := func(code int, reason, message string) string {
		return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"reason":%q,"code":%d}`, message, reason, code)
	}
	pod := func(name string) string { return `{"metadata":{"namespace":"a","name":"` + name + `"}}` }
	mux := http.NewServeMux()
	mux.HandleFunc("/base/api/v1/pods", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("limit") != "500" {
			t.Errorf("not in pages: %s", r.URL)
		}
		if r.URL.Query().Get("continue") == "" {
			answer(w, 200, `{"metadata":{"continue":"more"},"items":[`+pod("one")+`]}`)
			return
		}
		answer(w, 200, `{"metadata":{},"items":[`+pod("two")+`]}`)
	})
	mux.HandleFunc("/base/api/v1/services", func(w http.ResponseWriter, r *http.Request) {
		switch q := r.URL.Query(); {
		case q.Get("continue") != "":
			answer(w, 410, status(410, "Expired", "too old"))
		case q.Get("limit") != "":
			answer(w, 200, `{"metadata":{"continue":"more"},"items":[`+pod("one")+`]}`)
		default:
			answer(w, 200, `{"metadata":{},"items":[`+pod("one")+","+pod("two")+`]}`)
		}
	})
	mux.HandleFunc("/base/api/v1/namespaces", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 403, status(403, "Forbidden", "namespaces is forbidden"))
	})
	mux.HandleFunc("/base/api/v1/nodes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 401, status(401, "Unauthorized", "Unauthorized"))
	})
	mux.HandleFunc("/base/api/v1/secrets", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("fieldSelector") != "type!=helm.sh/release.v1" {
			t.Errorf("Helm's releases are asked for: %s", r.URL)
		}
		answer(w, 200, `{"items":[]}`)
	})
	mux.HandleFunc("/base/apis/gateway.networking.k8s.io/v1alpha2/tcproutes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, `{"items":[{"apiVersion":"gateway.networking.k8s.io/v1alpha2","metadata":{"namespace":"a","name":"old"}}]}`)
	})
	mux.HandleFunc("/base/apis/security.istio.io/v1/authorizationpolicies", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, `{"items":[{"metadata":{"namespace":"a","name":"odd"},"spec":{"rules":"no list"}},{"metadata":{"namespace":"a","name":"new"},"spec":{"fieldOfTomorrow":1}}]}`)
	})
	mux.HandleFunc("/base/api/v1/namespaces/a/pods/nobody", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 404, status(404, "NotFound", `pods "nobody" not found`))
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	c, err := New(&Config{REST: &rest.Config{Host: srv.URL + "/base"}, Context: "test", From: "a test"}, "ambit/test")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestListsAsRealServersGiveThem(t *testing.T) {
	c := objectServer(t)
	names := func(kind string) string {
		all, err := c.List(t.Context(), kindOf(t, kind), "", "")
		if err != nil {
			return err.Error()
		}
		var b []string
		for _, o := range all {
			b = append(b, o.GetName()+" "+o.GetObjectKind().GroupVersionKind().Kind)
		}
		return strings.Join(b, ", ")
	}
	for _, c := range []struct{ name, kind, want string }{
		{"page by page", "pods", "one Pod, two Pod"},
		{"a page that came too late: all at once", "services", "one Service, two Service"},
		{"in the version that the server has", "tcproutes", "old TCPRoute"},
		{"none of a kind that it does not have", "virtualservices", ""},
		{"without the releases of Helm", "secrets", ""},
		{"a right is missing", "namespaces", "namespaces is forbidden; docs/commands.md has the rights that these commands need"},
		{"nobody knows us", "nodes", "cluster test does not take the credentials of a test (Unauthorized): log in again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := names(c.kind); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	t.Run("one that cannot be read is an error, or told and left out", func(t *testing.T) {
		if got := names("authorizationpolicies"); !strings.Contains(got, "AuthorizationPolicy of the API server") {
			t.Error(got)
		}
		c.Unread = func(k kinds.Kind, namespace, name string, err error) {
			if k.Kind != "AuthorizationPolicy" || namespace != "a" || name != "odd" || err == nil {
				t.Errorf("%s %s/%s: %v", k.Kind, namespace, name, err)
			}
		}
		if got := names("authorizationpolicies"); got != "new AuthorizationPolicy" {
			t.Error(got)
		}
	})
	t.Run("not found is told as such", func(t *testing.T) {
		if _, err := c.Get(t.Context(), kindOf(t, "pods"), "a", "nobody"); !client.NotFound(err) {
			t.Error(err)
		}
	})
}

func TestAServerThatIsAwayIsNamed(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c, err := New(&Config{REST: &rest.Config{Host: srv.URL}, Context: "prod", From: "$KUBECONFIG"}, "ambit/test")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.List(t.Context(), kindOf(t, "pods"), "", "")
	if err == nil || !strings.Contains(err.Error(), "cluster prod ("+srv.URL+", of $KUBECONFIG) does not answer") {
		t.Error(err)
	}
}

func TestKubeconfigs(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file(`{apiVersion: v1, kind: Config, current-context: prod, clusters: [{name: c, cluster: {server: "https://192.0.2.1"}}], users: [{name: u, user: {token: t}}],
contexts: [{name: prod, context: {cluster: c, user: u, namespace: shop}}, {name: gate, context: {cluster: c, user: u, extensions: [{name: ambit-local-cluster, extension: {state: /there}}]}}]}`)
	c, err := Load(good, "")
	if err != nil || c.Context != "prod" || c.Namespace != "shop" || c.LocalState != "" || c.REST.Host != "https://192.0.2.1" {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err = Load(good, "gate"); err != nil || c.LocalState != "/there" {
		t.Errorf("%+v, %v", c, err)
	}
	for name, c := range map[string]struct{ file, context, want string }{
		"a context that is close": {good, "prd", `context "prd" does not exist; did you mean prod?`},
		"a context that is not":   {good, "elsewhere", "has: gate, prod"},
		"an empty file":           {file(""), "", "names no cluster"},
		"no file":                 {"/no/such", "", "no such file"},
		"no YAML":                 {file("{"), "", "kubeconfig: "},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Load(c.file, c.context); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	t.Setenv("KUBECONFIG", "/no/such")
	if _, err := Load("", ""); err == nil || !strings.Contains(err.Error(), "$KUBECONFIG, which is /no/such, names no cluster") {
		t.Errorf("$KUBECONFIG leads nowhere: %v", err)
	}
	t.Setenv("KUBECONFIG", "")
	if _, err := os.Stat(clientcmd.RecommendedHomeFile); err == nil || os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return // there is one here
	}
	if _, err := Load("", ""); !errors.Is(err, ErrNone) {
		t.Errorf("nothing named: %v", err)
	}
}
