package analyze_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/cli/internal/analyze"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// BenchmarkRun analyzes a mesh of 1000 services with a policy and a pod each.
func BenchmarkRun(b *testing.B) {
	var text strings.Builder
	text.WriteString("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {istio.io/dataplane-mode: ambient}}}\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "---\n{apiVersion: v1, kind: Service, metadata: {name: s%d, namespace: a}, spec: {selector: {app: s%d}, ports: [{name: http, port: 80}]}}\n", i, i)
		fmt.Fprintf(&text, "---\n{apiVersion: v1, kind: Pod, metadata: {name: p%d, namespace: a, labels: {app: s%d}}, spec: {containers: [{name: c, image: i}]}}\n", i, i)
		fmt.Fprintf(&text, "---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p%d, namespace: a}, spec: {selector: {matchLabels: {app: s%d}}}}\n", i, i)
	}
	found, err := kinds.Decode("b.yaml", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		analyze.Run(analyze.Input{Objects: found, Live: true})
	}
}
