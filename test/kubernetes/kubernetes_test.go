// Package kubernetes proves the mesh on a real Kubernetes cluster: `make test-kubernetes`.
//
// A scenario is a function in a file of its own, and a line in the list here. To work on one, leave a cluster running
// (test/cluster/up) and say
//
//	AMBIT_KUBERNETES=1 AMBIT_KUBERNETES_STATE=/var/lib/ambient-cluster go test -v ./test/kubernetes -run TestKubernetes/NAME
package kubernetes

import (
	"testing"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

func TestKubernetes(t *testing.T) {
	t.Parallel()
	c := kube.Start(t, kube.Options{Nodes: 3})
	defer func() { t.Logf("\n%s", c.Table()) }()

	c.Run(t, 1, kube.Scenario{Name: "install", Run: testInstall})
	c.Mesh(t)
	c.Run(t, 1, kube.Scenario{Name: "walk-through", Run: testWalkThrough})
	// Each in namespaces of its own, beside others.
	c.Run(t, 1, kube.Scenario{Name: "pods", Run: testPods})
	// Each alone: it breaks what others need, or measures.
	c.Run(t, 1, kube.Scenario{Name: "commands", Run: testCommands})
	c.Run(t, 1, faults()...)
	c.Run(t, 1, kube.Scenario{Name: "figures", Run: testFigures})
	c.Run(t, 1, kube.Scenario{Name: "uninstall", Run: testUninstall}, kube.Scenario{Name: "uninstall under load", Run: testLeave})
}
