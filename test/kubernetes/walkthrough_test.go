package kubernetes

import (
	"testing"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// testWalkThrough is the walk of the README, on the ambient mesh as it was announced.
func testWalkThrough(t *testing.T, c *kube.Cluster) {
	if !c.Fresh {
		t.Skip("changes the mesh, which was there before")
	}
	c.Install(t, "ambient-2023")
	c.Kubectl(t, "get", "pods", "-n", "istio-system")
}
