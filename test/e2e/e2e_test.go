// Package e2e runs the binaries that users run, on local clusters, by scripts.
package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ambit-mesh/ambit/local"
)

func TestMain(m *testing.M) {
	if status, handled := local.Dispatch(); handled {
		os.Exit(status) // Preflight probes the machine with this program
	}
	os.Exit(m.Run())
}

func TestScripts(t *testing.T) {
	bin := binaries(t)
	t.Run("mesh", func(t *testing.T) { onOneMesh(t, bin) })
	t.Run("cluster", func(t *testing.T) { onOwnClusters(t, bin) })
}

// onOneMesh runs the scripts of mesh/ on one cluster of three nodes with a mesh. Each script has namespaces of its own.
func onOneMesh(t *testing.T, bin string) {
	state := filepath.Join(shortDir(t), "c")
	ambit := filepath.Join(bin, "ambit")
	t.Cleanup(func() { run(t, ambit, "local", "--state", state, "down") })
	up := run(t, ambit, "local", "--state", state, "up", "--ingress-port", freePort(t))
	_, url, _ := strings.Cut(up, "The ingress gateway is at ")
	url, _, _ = strings.Cut(url, " ")
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, params(t, "mesh", bin, func(e *testscript.Env) error {
			e.Setenv("STATE", state)
			e.Setenv("INGRESS", url)
			return nil
		}))
	})
	if t.Failed() {
		if b, err := os.ReadFile(filepath.Join(state, "cluster.log")); err == nil {
			lines := strings.Split(string(b), "\n")
			t.Logf("the cluster's last words:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	}
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
		e.Setenv("PORT", freePort(t))
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

// binaries are those of $AMBIT_BIN, else built now. It skips where the machine cannot run a cluster.
func binaries(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("clusters take longer than a short test may")
	}
	for _, p := range local.Preflight(t.Context()) {
		t.Skipf("this machine cannot run a local cluster: %s", p)
	}
	if dir := os.Getenv("AMBIT_BIN"); dir != "" {
		return dir
	}
	dir := shortDir(t)
	cmd := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", dir+"/", "../../cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the binaries: %v\n%s", err, out)
	}
	return dir
}

// shortDir is a temporary directory with a path short enough for sockets beneath it, whatever the test's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ambit-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// run runs a program that must succeed.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out.String())
	}
	return out.String()
}

func freePort(t *testing.T) string {
	t.Helper()
	return strconv.Itoa(listenPort(t))
}
