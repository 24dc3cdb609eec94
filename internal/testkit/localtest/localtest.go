// Package localtest gives tests local clusters that run the binaries users run.
package localtest

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/local"
)

// Main is the TestMain of tests that use clusters: Preflight probes the machine with the test's own program.
func Main(m *testing.M) {
	if status, handled := local.Dispatch(); handled {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// Needed skips a test that needs a cluster where the machine cannot run one, or where only short tests are wanted.
func Needed(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("clusters take longer than a short test may")
	}
	for _, p := range local.Preflight(t.Context()) {
		t.Skipf("this machine cannot run a local cluster: %s", p)
	}
}

// Binaries is the directory of the binaries: $AMBIT_BIN, or one made now. It skips as Needed does.
func Binaries(t *testing.T) string {
	t.Helper()
	Needed(t)
	if dir := os.Getenv("AMBIT_BIN"); dir != "" {
		return dir
	}
	dir := ShortDir(t)
	Build(t, dir, "github.com/ambit-mesh/ambit/cmd/...")
	return dir
}

// Build builds programs into a directory.
func Build(t *testing.T, dir string, packages ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-tags", "grpcnotrace", "-o", dir + "/"}, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", strings.Join(packages, " "), err, out)
	}
}

// ShortDir is a temporary directory with a path short enough for sockets beneath it, whatever the test's name.
func ShortDir(t *testing.T) string {
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

// FreePort is a TCP port of loopback that nothing listened on a moment ago.
func FreePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// Cluster is a running local cluster with a mesh. It ends with its test.
type Cluster struct {
	Ambit, State string
	// IngressURL is where the ingress gateway listens on this machine.
	IngressURL string
}

// Up starts a cluster with the binaries of a directory.
func Up(t *testing.T, bin string, flags ...string) *Cluster {
	t.Helper()
	c := &Cluster{Ambit: filepath.Join(bin, "ambit"), State: filepath.Join(ShortDir(t), "c")}
	t.Cleanup(func() {
		c.races(t)
		if t.Failed() {
			c.lastWords(t)
		}
		c.Run(t, "down")
	})
	up := c.Run(t, append([]string{"up", "--ingress-port", FreePort(t)}, flags...)...)
	_, url, _ := strings.Cut(up, "The ingress gateway is at ")
	c.IngressURL, _, _ = strings.Cut(url, " ")
	return c
}

// races fails the test if binaries built with the race detector, as $AMBIT_BIN may hold, wrote of one.
func (c *Cluster) races(t *testing.T) {
	t.Helper()
	pods, err := c.Try("get", "pods", "-n", "istio-system", "-o", "jsonpath={.items[*].metadata.name}")
	if err != nil {
		return // no cluster, and so no log
	}
	logs := map[string]string{}
	for _, pod := range strings.Fields(pods) {
		if logs[pod], err = c.Try("logs", "-n", "istio-system", pod, "--tail", "-1"); err != nil {
			t.Logf("log of %s: %v", pod, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(c.State, "cluster.log")); err == nil {
		logs["the cluster"] = string(b)
	}
	for who, text := range logs {
		if _, race, found := strings.Cut(text, "WARNING: DATA RACE"); found {
			t.Errorf("%s: data race%.6000s", who, race)
		}
	}
}

func (c *Cluster) lastWords(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(c.State, "cluster.log"))
	if err != nil {
		t.Logf("the cluster's log: %v", err)
		return
	}
	lines := strings.Split(string(b), "\n")
	t.Logf("the cluster's last words:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
}

// Command is `ambit local ARGS` of this cluster, not started yet.
func (c *Cluster) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Ambit, append([]string{"local", "--state", c.State}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Try is `ambit local ARGS`, with its output.
func (c *Cluster) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := c.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Run is `ambit local ARGS`, which must succeed.
func (c *Cluster) Run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.Try(args...)
	if err != nil {
		t.Fatalf("ambit local %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Apply applies objects written as YAML.
func (c *Cluster) Apply(t *testing.T, yaml string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := c.Command(ctx, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(yaml)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
}

// Eventually repeats a check of another process until it holds.
func Eventually(t *testing.T, within time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !holds() {
		if time.Since(start) > within {
			t.Fatalf("%s: not within %v", what, within)
		}
		time.Sleep(50 * time.Millisecond) // between two looks at another process
	}
	return time.Since(start)
}
