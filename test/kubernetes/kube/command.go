package kube

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is how long one command may take: installing waits for pods, on machines that do other things beside.
const patience = 10 * time.Minute

// Kubectl is the real kubectl, which must succeed. Paths are relative to the repository.
func (c *Cluster) Kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return c.must(t, "", c.kubectl, args...)
}

// KubectlPath is the program.
func (c *Cluster) KubectlPath() string { return c.kubectl }

// Try is kubectl, with what it said, on its error output too.
func (c *Cluster) Try(args ...string) (string, error) { return c.run("", c.kubectl, args...) }

// Command is kubectl, for a test that talks with it while it runs.
func (c *Cluster) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.kubectl, args...)
	cmd.Dir, cmd.Env = c.root, c.Env()
	return cmd
}

// Apply applies objects; more arguments go to kubectl, such as "-n" and a namespace.
func (c *Cluster) Apply(t *testing.T, yaml string, args ...string) {
	t.Helper()
	c.must(t, yaml, c.kubectl, append([]string{"apply", "-f", "-"}, args...)...)
}

// Ambit is the command line under test, which must succeed.
func (c *Cluster) Ambit(t *testing.T, args ...string) string {
	t.Helper()
	return c.must(t, "", filepath.Join(c.Bin, "ambit"), args...)
}

// TryAmbit is the command line under test, with what it said, on its error output too.
func (c *Cluster) TryAmbit(args ...string) (string, error) {
	return c.run("", filepath.Join(c.Bin, "ambit"), args...)
}

// Shell runs a line of a shell as a user would write it, in the repository, with kubectl and ambit on the PATH.
func (c *Cluster) Shell(line string) (string, error) { return c.run("", "sh", "-c", line) }

// Load puts image archives onto every node. Where nobody said how, that is for who gave the cluster.
func (c *Cluster) Load(t *testing.T, archives ...string) {
	t.Helper()
	if len(c.load) > 0 {
		c.must(t, "", c.load[0], append(c.load[1:len(c.load):len(c.load)], archives...)...)
	}
}

// Env is the environment of commands that use the cluster.
func (c *Cluster) Env() []string {
	path := c.Bin + ":" + os.Getenv("PATH")
	if c.Own() {
		path = filepath.Dir(c.kubectl) + ":" + path
	}
	env := append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "PATH="+path)
	if c.Own() {
		env = append(env, "AMBIENT_CLUSTER_STATE="+c.State)
	}
	return env
}

func (c *Cluster) must(t *testing.T, in, program string, args ...string) string {
	t.Helper()
	out, err := c.run(in, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c *Cluster) run(in, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.root, c.Env(), strings.NewReader(in), &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, &out)
	}
	return out.String(), nil
}
