// Package kube gives tests a Kubernetes cluster with a mesh on it.
package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Cluster is a Kubernetes cluster. Each scenario has one to itself, of the same cluster.
type Cluster struct {
	// Samples is the directory of the sample objects.
	Samples string
	// Bin is the directory of the programs under test.
	Bin string
	// State is the state directory of a cluster of test/cluster; empty for any other.
	State string
	// Hub and Tag are those of the mesh's images.
	Hub, Tag string
	// Fresh says that the mesh was not there before, so that it may be changed and taken away.
	Fresh bool

	root       string // of the repository
	kubeconfig string
	kubectl    string
	load       []string // command that takes image archives
	spaces     *[]string
	times      *table
}

// Options say which cluster is wanted.
type Options struct {
	// Nodes is how many a cluster that is started has.
	Nodes int
	// Apart asks for a cluster that no other test uses, whichever is given.
	Apart bool
}

// Start gives the cluster to test: that of $AMBIT_KUBERNETES_STATE, that of $KUBECONFIG, or one of its own, which ends
// with the test. Without AMBIT_KUBERNETES=1 the test is skipped.
func Start(t *testing.T, o Options) *Cluster {
	t.Helper()
	if os.Getenv("AMBIT_KUBERNETES") == "" {
		t.Skip("needs a Kubernetes cluster: make test-kubernetes")
	}
	c := &Cluster{spaces: new([]string), times: new(table)}
	c.programs(t)
	state, kubeconfig := os.Getenv("AMBIT_KUBERNETES_STATE"), os.Getenv("KUBECONFIG")
	switch {
	case state != "" && !o.Apart:
		c.of(t, state)
	case kubeconfig != "" && o.Apart:
		t.Skip("KUBECONFIG names the cluster to test, and this needs one of its own")
	case kubeconfig != "":
		c.kubeconfig, c.kubectl = kubeconfig, "kubectl"
		c.load = strings.Fields(os.Getenv("AMBIT_KUBERNETES_LOAD"))
	default:
		c.hold(t, o.Nodes)
	}
	c.Fresh = !c.Installed()
	t.Logf("cluster of %s: %d nodes", c.kubeconfig, len(c.Nodes(t)))
	return c
}

// programs finds what was built.
func (c *Cluster) programs(t *testing.T) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; !exists(filepath.Join(dir, "go.mod")); dir = filepath.Dir(dir) {
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test: it runs in its repository")
		}
	}
	c.root, c.Samples, c.Bin = dir, filepath.Join(dir, "samples"), filepath.Join(dir, "bin")
	for _, file := range []string{filepath.Join(c.Bin, "ambit"), c.images()} {
		if !exists(file) {
			t.Fatalf("no %s: `make build images ARCH=%s` makes it, and `make test-kubernetes` all that is needed", file, runtime.GOARCH)
		}
	}
}

// images is the archive of the images under test.
func (c *Cluster) images() string {
	return filepath.Join(c.root, "dist", "images-"+runtime.GOARCH+".tar")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Kubeconfig is the file that leads to the cluster.
func (c *Cluster) Kubeconfig() string { return c.kubeconfig }

// Own tells whether it is a cluster of test/cluster, whose nodes can be entered, watched and broken.
func (c *Cluster) Own() bool { return c.State != "" }

// Nodes are the names of the nodes, in order.
func (c *Cluster) Nodes(t *testing.T) []string {
	t.Helper()
	return strings.Fields(c.Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"))
}

// Namespace makes a namespace with these labels (name=value), which goes when the test ends.
func (c *Cluster) Namespace(t *testing.T, prefix string, labels ...string) string {
	t.Helper()
	name := fmt.Sprintf("%s-%05x", prefix, time.Now().UnixNano()>>12&0xfffff)
	var b strings.Builder
	fmt.Fprintf(&b, "{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {test: %s", name, prefix)
	for _, l := range labels {
		key, value, ok := strings.Cut(l, "=")
		if !ok {
			t.Fatalf("label %q: want name=value", l)
		}
		fmt.Fprintf(&b, ", %q: %q", key, value)
	}
	c.Apply(t, b.String()+"}}}")
	*c.spaces = append(*c.spaces, name)
	t.Cleanup(func() { c.Kubectl(t, "delete", "namespace", name, "--wait=false") })
	c.Kubectl(t, "wait", "-n", name, "--for=create", "serviceaccount/default", "--timeout=2m") // pods need it
	return name
}

// Eventually repeats a check until it holds.
func (c *Cluster) Eventually(t *testing.T, within time.Duration, what string, holds func() error) {
	t.Helper()
	start := time.Now()
	for err := holds(); err != nil; err = holds() {
		if time.Since(start) > within {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(200 * time.Millisecond) // between two looks at another machine
	}
}
