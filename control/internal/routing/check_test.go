package routing

import (
	"strings"
	"testing"
)

// A rule that a proxy would refuse must not take with it those of others for the same host.
func TestARuleThatCannotBeReadIsLeftOutAlone(t *testing.T) {
	w := newWorld()
	w.load(t, []byte(`
apiVersion: v1
kind: Pod
metadata: {name: gw-1, namespace: istio-system, labels: {istio: ingressgateway}}
spec: {serviceAccountName: gw, containers: [{name: p, image: x}]}
status: {podIP: 10.244.1.2, phase: Running}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: istio-system}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: good, namespace: a}
spec: {hosts: [shop.test], gateways: [istio-system/gw], http: [{match: [{uri: {prefix: /good}}], route: [{destination: {host: web}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: evil, namespace: b}
spec: {hosts: [shop.test], gateways: [istio-system/gw], http: [{match: [{uri: {regex: `+strings.Repeat("x", 3000)+`}}], route: [{destination: {host: web}}]}]}
`))
	got := w.dump(t)
	if !strings.Contains(got, "prefix: /good") || strings.Contains(got, "xxx") {
		t.Errorf("resources:\n%s", got)
	}
	if !strings.Contains(got, "VirtualService/b/evil: http[0]: an expression has 3000 bytes") {
		t.Errorf("nobody is told:\n%s", got)
	}
}
