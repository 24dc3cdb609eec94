// Package plugin builds the CNI plugin for tests that run it as a container runtime does.
package plugin

import (
	"os/exec"
	"testing"
)

// Build puts the plugin's program at path.
func Build(t testing.TB, path string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, "github.com/ambit-mesh/ambit/cmd/ambit-cni").CombinedOutput()
	if err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
}
