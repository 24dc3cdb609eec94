package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func TestWhatIsNotActedOnIsSaid(t *testing.T) {
	e := start(t)
	const limited = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},
		"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"memory":"1Gi","cpu":"1"}}}]}}}}`
	for _, c := range []struct{ path, body, want string }{
		{"/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"n"},"spec":{"podSelector":{}}}`, `299 - "NetworkPolicy \"n\" is kept, but a local cluster enforces no NetworkPolicy`},
		{"/apis/apps/v1/namespaces/default/deployments", limited, `container \"c\": a local cluster does not enforce its limits of cpu and memory`},
		{"/api/v1/namespaces/default/configmaps", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}`, ""},
	} {
		req := httptest.NewRequest(http.MethodPost, c.path, strings.NewReader(c.body))
		w := httptest.NewRecorder()
		New(Config{Store: e.store}).Trusted().ServeHTTP(w, req)
		got := strings.Join(w.Header().Values("Warning"), "\n")
		if w.Code != 201 || !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %d %q, want %q", c.path, w.Code, got, c.want)
		}
	}
	if code, body := e.do("POST", "/ambit/v1/apply", strings.Replace(limited, `"web"`, `"web2"`, 1), nil); code != 200 || !strings.Contains(body, "does not enforce its limits") {
		t.Errorf("apply: %d %s", code, body)
	}
}

func TestIdleKindsAreKinds(t *testing.T) {
	for resource := range idleKinds() {
		if k, ok := kinds.Find(resource); !ok || k.Resource() != resource {
			t.Errorf("%s is no kind", resource)
		}
	}
}
