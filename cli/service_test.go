package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func TestServiceIsDescribedWithItsReadyEndpoints(t *testing.T) {
	found, err := kinds.Decode("svc.yaml", []byte(`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: ClusterIP
  clusterIP: 10.96.1.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: web, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.1.2], conditions: {ready: true}}
- {addresses: [10.244.1.3], conditions: {ready: false}}
- {addresses: [10.244.1.4, 10.244.1.5, 10.244.1.6]}
`))
	if err != nil {
		t.Fatal(err)
	}
	svc, ok := found[0].Object.(*corev1.Service)
	if !ok {
		t.Fatalf("a %T", found[0].Object)
	}
	want := [][]string{
		{"Selector:", "app=web"},
		{"Type:", "ClusterIP"},
		{"IP:", "10.96.1.1"},
		{"Port:", "http  80/TCP"},
		{"TargetPort:", "web/TCP"},
		{"Endpoints:", "10.244.1.2:8080,10.244.1.4:8080,10.244.1.5:8080 + 1 more..."},
		{"Session Affinity:", "None"},
	}
	if diff := cmp.Diff(want, serviceRows(svc, []kinds.Object{found[1].Object})); diff != "" {
		t.Errorf("rows differ (-want +got):\n%s", diff)
	}
}
