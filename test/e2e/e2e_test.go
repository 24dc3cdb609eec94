// Package e2e runs the binaries that users run, on local clusters, by scripts.
package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ambit-mesh/ambit/internal/testkit/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m) }

func TestScripts(t *testing.T) {
	bin := localtest.Binaries(t)
	t.Run("mesh", func(t *testing.T) { onOneMesh(t, bin) })
	t.Run("cluster", func(t *testing.T) { onOwnClusters(t, bin) })
}

// onOneMesh runs the scripts of mesh/ on one cluster of three nodes with a mesh. Each script has namespaces of its own.
func onOneMesh(t *testing.T, bin string) {
	c := localtest.Up(t, bin)
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, params(t, "mesh", bin, func(e *testscript.Env) error {
			e.Setenv("STATE", c.State)
			e.Setenv("INGRESS", c.IngressURL)
			e.Setenv("FREE", localtest.FreePort(t))
			return nil
		}))
	})
}

// onOwnClusters runs the scripts of cluster/. Each starts and ends clusters of its own.
func onOwnClusters(t *testing.T, bin string) {
	testscript.Run(t, params(t, "cluster", bin, func(e *testscript.Env) error {
		dir, err := os.MkdirTemp("", "ambit-e2e-")
		if err != nil {
			return err
		}
		state := filepath.Join(dir, "c")
		e.Defer(func() {
			out, err := exec.Command(filepath.Join(bin, "ambit"), "local", "--state", state, "down").CombinedOutput()
			if err != nil {
				t.Errorf("down: %v: %s", err, out)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		tmp := filepath.Join(dir, "t")
		if err := os.Mkdir(tmp, 0o700); err != nil {
			return err
		}
		e.Setenv("STATE", state)
		e.Setenv("TMPDIR", tmp)
		e.Setenv("PORT", localtest.FreePort(t))
		return nil
	}))
}

func params(t *testing.T, dir, bin string, setup func(*testscript.Env) error) testscript.Params {
	return testscript.Params{
		Dir: dir, Cmds: commands(new(sync.Map)), RequireUniqueNames: true, WorkdirRoot: t.TempDir(),
		Setup: func(e *testscript.Env) error {
			samples, err := filepath.Abs("../../samples")
			if err != nil {
				return err
			}
			e.Setenv("AMBIT", filepath.Join(bin, "ambit"))
			e.Setenv("SAMPLES", samples)
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			return setup(e)
		},
	}
}
