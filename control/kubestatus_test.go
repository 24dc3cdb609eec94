package control_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
)

// realKinds defines the kinds of Istio and of the Gateway API as their projects do.
func realKinds(t testing.TB, api *kubeapi.Server) {
	t.Helper()
	for module, pattern := range map[string]string{"istio.io/api": "kubernetes/customresourcedefinitions.gen.yaml", "sigs.k8s.io/gateway-api": "config/crd/experimental/*routes.yaml,config/crd/standard/*_gateway*.yaml"} {
		out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for p := range strings.SplitSeq(pattern, ",") {
			files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), p))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				text, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				all, err := kubeapi.Objects(string(text))
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range all {
					if o.GetKind() != "CustomResourceDefinition" {
						continue
					}
					delete(o.Object, "status")
					data, err := o.MarshalJSON()
					if err != nil {
						t.Fatal(err)
					}
					api.Apply(string(data))
					api.Established(o.GetName())
					n++
				}
			}
		}
		if n < 5 {
			t.Fatalf("%s defines %d kinds", module, n)
		}
	}
}

// conditions are those at a place of an object's status, as "Type=Status Reason".
func conditionsAt(o map[string]any, path ...any) (out []string) {
	var v any = o
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	l, _ := v.([]any)
	for _, c := range l {
		c, _ := c.(map[string]any)
		out = append(out, fmt.Sprintf("%v=%v %v", c["type"], c["status"], c["reason"]))
	}
	return out
}

// What is said of objects fits the schemas of the real kinds, and what other controllers say beside it stays.
func TestStatusOfRealKinds(t *testing.T) {
	api := startAPIWith(t, realKinds)
	const gw = "gateway.networking.k8s.io/v1"
	api.Apply(strings.ReplaceAll(`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, labels: {istio.io/use-waypoint: none-such}}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: default}
spec: {action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: default}
spec: {hosts: [a.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: default}
spec: {host: web, trafficPolicy: {tunnel: {protocol: CONNECT, targetHost: x, targetPort: 80}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: default}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: default}
spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: web, port: 80}]}]}
`, "\t", ""))
	// Another controller speaks of the route first.
	api.Apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: default}
spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: web, port: 80}]}]}
status: {parents: [{parentRef: {name: other}, controllerName: example.com/other, conditions: [{type: Accepted, status: 'True', reason: Accepted, message: '', lastTransitionTime: '2026-01-02T03:04:05Z'}]}]}
`)
	startReplica(t, api, "a")
	has := func(apiVersion, kind, name, want string, path ...any) {
		t.Helper()
		var got []string
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			o := api.Get(apiVersion, kind, "default", name)
			if o == nil {
				t.Fatalf("no %s %s", kind, name)
			}
			got = conditionsAt(o.Object, append([]any{"status"}, path...)...)
			for _, c := range got {
				if strings.HasPrefix(c, want) {
					return
				}
			}
		}
		t.Errorf("%s %s: %v, want %s", kind, name, got, want)
	}
	has("security.istio.io/v1", "AuthorizationPolicy", "p", "ZtunnelAccepted=", "conditions")
	has("networking.istio.io/v1", "ServiceEntry", "e", "ambit.io/InForce=", "conditions")
	has("networking.istio.io/v1", "DestinationRule", "d", "ambit.io/InForce=False", "conditions")
	has("v1", "Service", "web", "istio.io/WaypointBound=False", "conditions")
	has(gw, "Gateway", "g", "Accepted=", "conditions")
	has(gw, "Gateway", "g", "Accepted=", "listeners", 0, "conditions")
	has(gw, "HTTPRoute", "r", "Accepted=", "parents", 1, "conditions")
	has(gw, "HTTPRoute", "r", "Accepted=True", "parents", 0, "conditions")
	if e := api.Get("networking.istio.io/v1", "ServiceEntry", "default", "e"); len(conditionsAt(e.Object, "status", "addresses")) != 2 {
		t.Errorf("addresses %v", e.Object["status"])
	}
	t.Run("what is not to be said any more is taken back, and nothing else", func(t *testing.T) {
		api.Apply(strings.Replace("apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default}\nspec: {selector: {app: web}, ports: [{name: http, port: 80}]}\n", "\t", "", 1))
		waitFor(t, "the Service asks for no waypoint", func() bool {
			return len(conditionsAt(api.Get("v1", "Service", "default", "web").Object, "status", "conditions")) == 0
		})
	})
}
