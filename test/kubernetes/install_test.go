package kubernetes

import (
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// ticked compares what an installation said is done, in whichever order.
func ticked(t *testing.T, said string, want ...string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "✔ ") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("install said\n%s\nwant the lines\n%s", said, strings.Join(want, "\n"))
	}
}

// testInstall: on a cluster without a mesh, one command is enough, and says what it did.
func testInstall(t *testing.T, c *kube.Cluster) {
	if !c.Fresh {
		t.Skip("the mesh is there already")
	}
	said := c.Install(t, "ambient")
	ticked(t, said, "✔ Istio core installed ⛵️", "✔ Istiod installed 🧠", "✔ CNI installed 🪢", "✔ Ztunnel installed 🔒", "✔ Installation complete")
	if said = c.Install(t, "ambient"); !strings.Contains(said, "Nothing changed") {
		t.Errorf("installed again, it said\n%s", said)
	}
}
