package kube

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// of uses the running cluster of a state directory.
func (c *Cluster) of(t *testing.T, state string) {
	t.Helper()
	programs, err := clusterPrograms()
	if err != nil {
		t.Fatal(err)
	}
	c.State, c.kubeconfig, c.kubectl = state, filepath.Join(state, "kubeconfig"), filepath.Join(programs, "kubectl")
	c.load = []string{c.script("load")}
	if !exists(c.kubeconfig) {
		t.Fatalf("no cluster in %s: test/cluster/up starts one", state)
	}
}

// clusterPrograms is where test/cluster/build puts what it builds.
func clusterPrograms() (string, error) {
	if dir := os.Getenv("AMBIENT_CLUSTER_BIN"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "ambient-cluster", "bin"), err
}

func (c *Cluster) script(name string) string { return filepath.Join(c.root, "test", "cluster", name) }

// hold starts a cluster that lives as long as this process holds the other end of a pipe: it is gone after a test that
// failed, that was interrupted and that was killed.
func (c *Cluster) hold(t *testing.T, nodes int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("starting a cluster needs root: run `sudo -E make test-kubernetes`, or name a cluster with KUBECONFIG")
	}
	start := time.Now()
	base, err := notOverlay()
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(base, fmt.Sprintf("ambit-kubernetes-%x", time.Now().UnixNano()))
	cmd := exec.Command(c.script("hold"), "--nodes", strconv.Itoa(nodes))
	cmd.Env = append(os.Environ(), "AMBIENT_CLUSTER_STATE="+state, "AMBIENT_CLUSTER_PORT="+freePort(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt is for the test alone
	log, err := os.CreateTemp("", "ambit-kubernetes-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := func() string {
		b, err := os.ReadFile(log.Name())
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	t.Cleanup(func() {
		defer os.Remove(log.Name())
		start := time.Now()
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("take the cluster down: %v\n%s", err, said())
		}
		t.Logf("cluster taken down in %.1fs", time.Since(start).Seconds())
	})
	kubeconfig, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("start a cluster: %v\n%s", err, said())
	}
	c.of(t, state)
	if strings.TrimSpace(kubeconfig) != c.kubeconfig {
		t.Fatalf("a cluster with kubeconfig %q, want %s", kubeconfig, c.kubeconfig)
	}
	c.times.add("start the cluster", "", time.Since(start))
}

// notOverlay is a directory for nodes' file systems, which cannot be where the machine's own is an overlay.
func notOverlay() (string, error) {
	candidates := []string{os.Getenv("TMPDIR"), "/var/tmp", "/tmp", "/var/lib"}
	for _, dir := range candidates {
		var s unix.Statfs_t
		if dir != "" && unix.Statfs(dir, &s) == nil && s.Type != unix.OVERLAYFS_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", fmt.Errorf("none of %s is a directory outside overlayfs: name one with TMPDIR, on a disk or a tmpfs with 3 GB free",
		strings.TrimSpace(strings.Join(candidates, " ")))
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// Enter runs a command in a node, or in the "control-plane". On a cluster whose nodes cannot be entered the test is
// skipped.
func (c *Cluster) Enter(t *testing.T, node string, args ...string) string {
	t.Helper()
	c.NeedsOwn(t)
	out, err := c.TryEnter(node, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryEnter is Enter on a cluster whose nodes can be entered, with what the command said.
func (c *Cluster) TryEnter(node string, args ...string) (string, error) {
	return c.run("", c.script("enter"), append([]string{node}, args...)...)
}

// Reboot takes a node's power away and starts it again; see test/cluster/reboot.
func (c *Cluster) Reboot(t *testing.T, node string, between ...string) {
	t.Helper()
	c.NeedsOwn(t)
	c.must(t, "", c.script("reboot"), append([]string{node}, between...)...)
}

// NeedsOwn skips a scenario on a cluster whose nodes cannot be entered.
func (c *Cluster) NeedsOwn(t *testing.T) {
	t.Helper()
	if !c.Own() {
		t.Skip("enters nodes, and those of $KUBECONFIG cannot be entered")
	}
}
