package kubernetes

import "github.com/ambit-mesh/ambit/test/kubernetes/kube"

// faults break parts of the mesh, one after the other.
func faults() []kube.Scenario {
	return []kube.Scenario{
		{Name: "agent", Run: testAgent},
		{Name: "ztunnel", Run: testZtunnel},
		{Name: "istiod", Run: testIstiod},
		{Name: "api-server", Run: testAPIServer},
		{Name: "reboot", Run: testReboot},
		{Name: "cut-off", Run: testCutOff},
	}
}
