package control

import (
	"fmt"
	"testing"

	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/push"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/mesh"
)

// BenchmarkOneAmongMany measures what a change costs that concerns one pod of a namespace of 5,000 pods and 1,000 Services.
func BenchmarkOneAmongMany(b *testing.B) {
	st := source.NewStore()
	out := push.New(st, ambient.Config{ClusterID: mesh.ClusterID, TrustDomain: mesh.TrustDomain, ClusterDomain: mesh.ClusterDomain, RootNamespace: mesh.SystemNamespace}, nil)
	for i := range 1000 {
		st.Apply(objects(b, "service", fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: one}\nspec: {clusterIP: 10.%d.%d.1, selector: {app: a%d}, ports: [{name: http, port: 80}]}\n", i, i>>8, i&255, i)), nil)
	}
	for i := range 5000 {
		st.Apply(objects(b, "pod", fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: p%d, namespace: one, labels: {app: a%d, tier: web, pod: p%d}}\nspec: {nodeName: n, containers: [{name: c}]}\nstatus: {phase: Running, podIP: 10.%d.%d.%d}\n", i, i%1000, i, 100+i>>16, i>>8&255, i&255)), nil)
	}
	for name, text := range map[string]string{
		"service":                 "apiVersion: v1\nkind: Service\nmetadata: {name: new, namespace: one, labels: {n: \"%d\"}}\nspec: {clusterIP: 10.200.0.1, selector: {pod: p7}, ports: [{name: http, port: %d}]}\n",
		"policy":                  "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: new, namespace: one, labels: {n: \"%d\"}}\nspec: {selector: {matchLabels: {pod: p7}}, action: DENY, rules: [{to: [{operation: {ports: [\"%d\"]}}]}]}\n",
		"policy of the root":      "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: new, namespace: istio-system, labels: {n: \"%d\"}}\nspec: {selector: {matchLabels: {pod: p7}}, action: DENY, rules: [{to: [{operation: {ports: [\"%d\"]}}]}]}\n",
		"pod":                     "apiVersion: v1\nkind: Pod\nmetadata: {name: p7, namespace: one, labels: {app: a7, pod: p7, n: \"%d\"}, annotations: {a: \"%d\"}}\nspec: {nodeName: n, containers: [{name: c}]}\nstatus: {phase: Running, podIP: 10.100.0.7}\n",
		"unrelated service entry": "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: new, namespace: one, labels: {n: \"%d\"}}\nspec: {hosts: [x.example], resolution: DNS, ports: [{number: %d, name: http}]}\n",
	} {
		b.Run(name, func(b *testing.B) {
			i := 0
			for b.Loop() {
				b.StopTimer()
				i++
				o := objects(b, name, fmt.Sprintf(text, i, 1000+i%100))
				b.StartTimer()
				st.Apply(o, nil)
			}
		})
	}
	_ = out
}
