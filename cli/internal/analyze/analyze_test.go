package analyze_test

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/cli/internal/analyze"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func messages(t *testing.T, yaml string) string {
	t.Helper()
	found, err := kinds.Decode("t.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	var objects []kinds.Object
	for _, l := range found {
		objects = append(objects, l.Object)
	}
	var b strings.Builder
	for _, m := range analyze.Run(objects) {
		b.WriteString(m.String() + "\n")
	}
	return b.String()
}

const sound = `
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: a}, spec: {ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: a, labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gw, namespace: istio-system, labels: {istio: ingressgateway}}, spec: {containers: [{name: c, image: i}]}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: a}
spec: {selector: {istio: ingressgateway}, servers: [{hosts: ["*.example.com"], port: {name: http, number: 80, protocol: HTTP}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: a}
spec: {hosts: [shop.example.com], gateways: [gw], http: [{route: [{destination: {host: web}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: a}
spec: {selector: {matchLabels: {app: web}}}
`

func TestSoundObjectsSayNothing(t *testing.T) {
	if got := messages(t, sound); got != "" {
		t.Errorf("messages:\n%s", got)
	}
}

func TestEachMistakeIsNamed(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"host: web}", "host: wbe}", "Error [IST0101] (VirtualService a/vs) Referenced host not found: \"wbe\"\n"},
		{"gateways: [gw]", "gateways: [b/gw]", "Error [IST0101] (VirtualService a/vs) Referenced gateway not found: \"b/gw\"\n"},
		{"{selector: {istio: ingressgateway},", "{selector: {istio: other},", "Error [IST0101] (Gateway a/gw) Referenced selector not found: \"istio=other\"\n"},
		{"[shop.example.com]", "[shop.example.org]", "Warning [IST0132] (VirtualService a/vs) one or more host [shop.example.org] defined in VirtualService a/vs not found in Gateway a/gw.\n"},
		{"{matchLabels: {app: web}}", "{matchLabels: {app: wbe}}", "Warning [IST0127] (AuthorizationPolicy a/p) No matching workloads for this resource with the following labels: app=wbe\n"},
		{"{name: http, port: 80}", "{name: web, port: 80}", "Info [IST0118] (Service a/web) Port name web (port: 80, targetPort: 0) doesn't follow the naming convention of Istio port.\n"},
	} {
		if got := messages(t, strings.Replace(sound, c.from, c.to, 1)); got != c.want {
			t.Errorf("%s:\n%swant\n%s", c.to, got, c.want)
		}
	}
}
