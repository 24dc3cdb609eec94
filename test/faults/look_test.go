package faults

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/local/client"
)

// memory is the resident memory, in bytes, of each pod of istio-system whose name starts so.
func (m *mesh) memory(t *testing.T, prefix string) map[string]int64 {
	t.Helper()
	all, err := client.New(m.State).Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int64{}
	for _, p := range all {
		if strings.HasPrefix(p.Pod, "istio-system/"+prefix) {
			found[p.Pod] = p.RSS
		}
	}
	return found
}

// ztunnelConfig is `ambit ztunnel-config ARGS` of all ztunnels.
func (m *mesh) ztunnelConfig(args ...string) (string, error) {
	out, err := exec.Command(m.Ambit, append([]string{"ztunnel-config", "--state", m.State}, args...)...).CombinedOutput()
	return string(out), err
}
