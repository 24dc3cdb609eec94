package kubernetes

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// ticks are the lines of an installation that say that something is done.
func ticks(said string) []string {
	var all []string
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "✔ ") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

// testInstall: on a cluster without a mesh, one command is enough, and says what it did.
func testInstall(t *testing.T, c *kube.Cluster) {
	if !c.Fresh {
		t.Skip("the mesh is there already")
	}
	said := c.Install(t, "ambient")
	want := "✔ Istio core installed ⛵️|✔ Istiod installed 🧠|✔ CNI installed 🪢|✔ Ztunnel installed 🔒|✔ Installation complete"
	if got := strings.Join(ticks(said), "|"); got != want {
		t.Errorf("install said\n%s\nwant the lines %s", said, want)
	}
	if said = c.Install(t, "ambient"); !strings.Contains(said, "Nothing changed") {
		t.Errorf("installed again, it said\n%s", said)
	}
}

// testUninstall: nothing of the mesh stays.
func testUninstall(t *testing.T, c *kube.Cluster) {
	if !c.Fresh {
		t.Skip("the mesh was there before")
	}
	t.Log(c.Ambit(t, "uninstall", "--purge", "--skip-confirmation"))
	c.Eventually(t, 2*time.Minute, "istio-system gone", func() error {
		if out, err := c.Try("get", "namespace", "istio-system", "--ignore-not-found"); err != nil || out != "" {
			return errors.Join(err, errors.New(out))
		}
		return nil
	})
}
