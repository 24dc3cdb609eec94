package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/network/ptp"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
	"github.com/ambit-mesh/ambit/local/internal/runtime/view"
)

func TestMain(m *testing.M) {
	switch {
	case view.Called(os.Args[0]):
		os.Exit(view.Main())
	case ptp.Called(os.Args[0]):
		if err := ptp.Main(); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	netnstest.Main(m)
}

type cluster struct {
	t     *testing.T
	state string
	net   *network.Network
	run   *runtime.Runtime
}

func start(t *testing.T, nodes ...string) *cluster {
	t.Helper()
	netnstest.Need(t)
	c := &cluster{t: t, state: t.TempDir()}
	var err error
	if c.net, err = network.Build(network.Config{Nodes: nodes}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.net.Close(); err != nil {
			t.Error(err)
		}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c.run = runtime.New(runtime.Config{
		State: c.state, Bin: filepath.Dir(self), Self: self, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	for _, n := range c.net.Nodes() {
		if err := c.run.SetupNode(n); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("umount", "-R", filepath.Join(c.state, "nodes", n.Name, "run")).CombinedOutput(); err != nil {
				t.Logf("umount: %v: %s", err, out)
			}
		})
	}
	return c
}

func (c *cluster) pod(node, name string) (*runtime.Pod, error) {
	n, ok := c.net.Node(node)
	if !ok {
		c.t.Fatalf("no node %s", node)
	}
	return c.run.RunPod(c.t.Context(), runtime.PodConfig{
		Node: n, Namespace: "default", Name: name, UID: name + "-uid", Hostname: name, ResolvConf: "nameserver 10.96.0.10\n",
	})
}

func (c *cluster) mustPod(node, name string) *runtime.Pod {
	c.t.Helper()
	p, err := c.pod(node, name)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := p.Stop(context.Background(), 0); err != nil {
			c.t.Error(err)
		}
	})
	return p
}

func (c *cluster) sh(p *runtime.Pod, script string, mounts ...view.Mount) (*runtime.Container, string) {
	c.t.Helper()
	log := filepath.Join(c.state, "logs", p.Config().Name, "c.log")
	k, err := p.Start(runtime.ContainerConfig{Name: "c", Argv: []string{"sh", "-c", script}, Mounts: mounts, Log: log})
	if err != nil {
		c.t.Fatal(err)
	}
	return k, log
}

func wait(t *testing.T, k *runtime.Container) runtime.Exit {
	t.Helper()
	select {
	case <-k.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the container does not end")
	}
	return k.Exit()
}

func (c *cluster) logOf(path string) string {
	c.t.Helper()
	var b bytes.Buffer
	if err := c.run.ReadLog(c.t.Context(), path, runtime.LogOptions{Tail: -1}, &b); err != nil {
		c.t.Fatal(err)
	}
	return b.String()
}

func TestContainerSeesItsPod(t *testing.T) {
	c := start(t, "n1")
	p := c.mustPod("n1", "web")
	if got, want := p.Addrs(), netip.MustParseAddr("10.244.1.2"); len(got) != 1 || got[0] != want {
		t.Fatalf("addresses = %v, want [%v]", got, want)
	}
	volume := t.TempDir()
	if err := os.WriteFile(filepath.Join(volume, "key"), []byte("value\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	k, log := c.sh(p, `cat /etc/resolv.conf; cat /etc/hostname; uname -n; echo pid $$; cat /no/such/place/key
		(echo x > /no/such/place/other) 2>/dev/null || echo read-only
		(echo x > /usr/ambit-must-not-write) 2>/dev/null || echo machine read-only
		ls /var/run/secrets/kubernetes.io/serviceaccount; exit 7`,
		view.Mount{Source: volume, Target: "/no/such/place", ReadOnly: true},
		view.Mount{Source: volume, Target: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true})
	if e := wait(t, k); e.Code != 7 {
		t.Errorf("exit code %d, want 7", e.Code)
	}
	want := "nameserver 10.96.0.10\nweb\nweb\npid 1\nvalue\nread-only\nmachine read-only\nkey\n"
	if got := c.logOf(log); got != want {
		t.Errorf("the container said\n%s\nwant\n%s", got, want)
	}
	if _, err := os.Stat("/no"); err == nil {
		t.Error("the mount point was made on the machine")
	}
}

func TestExecRunsInsideWithExitStatus(t *testing.T) {
	c := start(t, "n1")
	p := c.mustPod("n1", "web")
	k, _ := c.sh(p, "exec sleep 1000")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := k.Exec(runtime.Command{Argv: []string{"sh", "-c", "cat /etc/hostname; echo $GREETING; exit 3"}, Env: []string{"GREETING=hello"}, Files: []*os.File{nil, w, w}})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("exec: %v, want exit status 3", err)
	}
	if string(out) != "web\nhello\n" {
		t.Errorf("exec said %q", out)
	}
	if _, err := k.Exec(runtime.Command{Argv: []string{"no-such-program"}}); !errors.Is(err, view.ErrNoProgram) {
		t.Errorf("exec of no program: %v, want %v", err, view.ErrNoProgram)
	}
	k.Stop(t.Context(), time.Minute) // sleep leaves SIGTERM alone: not waited for
	if _, err := k.Exec(runtime.Command{Argv: []string{"true"}}); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("exec in an ended container: %v, want %v", err, runtime.ErrNotRunning)
	}
}

func TestPodsReachEachOtherAcrossNodes(t *testing.T) {
	c := start(t, "n1", "n2")
	a, b := c.mustPod("n1", "a"), c.mustPod("n2", "b")
	l, err := c.listen(b, "0.0.0.0:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer conn.Close()
		got <- conn.RemoteAddr().String()
	}()
	conn, err := c.dial(a, netip.AddrPortFrom(b.Addrs()[0], 8080).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if from := <-got; !strings.HasPrefix(from, a.Addrs()[0].String()+":") {
		t.Errorf("b sees %s, want a's own address %s", from, a.Addrs()[0])
	}
	n, _ := c.net.Node("n2")
	probe, err := n.Dial(t.Context(), "tcp", netip.AddrPortFrom(b.Addrs()[0], 8080).String())
	if err != nil {
		t.Fatalf("the node cannot reach its pod: %v", err)
	}
	probe.Close()
}

func TestNewPodOfSameNameHasNewAddress(t *testing.T) {
	c := start(t, "n1")
	p, err := c.pod("n1", "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if again := c.mustPod("n1", "web"); again.Addrs()[0] == p.Addrs()[0] {
		t.Errorf("the new pod has the old one's address %v", p.Addrs()[0])
	}
}

func TestFailingPluginKeepsThePodFromStarting(t *testing.T) {
	c := start(t, "n1")
	dir := filepath.Join(c.state, "nodes/n1")
	script := `#!/bin/sh
read -r line
echo "$CNI_COMMAND $CNI_NETNS $CNI_ARGS" >> /var/run/calls
case "$line" in *prevResult*10.244.1.2*) ;; *) [ $CNI_COMMAND = DEL ] || exit 9;; esac
[ $CNI_COMMAND = DEL ] && exit 0
echo '{"cniVersion":"1.0.0","code":100,"msg":"no ztunnel connection"}'; exit 1
`
	if err := os.WriteFile(filepath.Join(dir, "opt/cni/bin/refuse"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := `{"cniVersion":"1.0.0","name":"ambit","plugins":[{"type":"ambit-ptp","capabilities":{"ips":true}},{"type":"refuse"}]}`
	if err := os.WriteFile(filepath.Join(dir, "etc/cni/net.d/10-ambit.conflist"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := c.pod("n1", "web")
	if err == nil || !strings.Contains(err.Error(), "no ztunnel connection") {
		t.Fatalf("the pod: %v, want the plugin's words", err)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "run/calls"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(calls)), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "ADD /var/run/netns/cni-") || !strings.HasPrefix(lines[1], "DEL ") ||
		!strings.Contains(lines[0], "K8S_POD_NAME=web") || !strings.Contains(lines[0], "K8S_POD_UID=web-uid") {
		t.Errorf("the plugin was called %q", lines)
	}
	left, err := os.ReadDir(filepath.Join(dir, "run/netns"))
	if err != nil || len(left) != 0 {
		t.Errorf("namespaces left: %v %v", left, err)
	}
}

func TestNamespacesOfLaterPodsShowInNodeAgents(t *testing.T) {
	c := start(t, "n1")
	n, _ := c.net.Node("n1")
	real, err := c.run.HostPath(n, "/var/run/netns", true)
	if err != nil {
		t.Fatal(err)
	}
	agent := c.mustPod("n1", "agent")
	k, _ := c.sh(agent, "exec sleep 1000", view.Mount{Source: real, Target: "/var/run/netns"})
	c.mustPod("n1", "later")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := k.Exec(runtime.Command{Argv: []string{"sh", "-c", "for f in /var/run/netns/*; do stat -f -c %T $f; done"}, Files: []*os.File{nil, w, w}})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, _ := io.ReadAll(r)
	if err := cmd.Wait(); err != nil || string(out) != "nsfs\nnsfs\n" {
		t.Errorf("the agent sees %q (%v), want two mounted namespaces", out, err)
	}
}

func TestFollowedLogEndsWithItsContainer(t *testing.T) {
	c := start(t, "n1")
	p := c.mustPod("n1", "web")
	k, log := c.sh(p, "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done")
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(c.run.ReadLog(t.Context(), log, runtime.LogOptions{Tail: -1, Follow: true}, w))
	}()
	first := make([]byte, 3)
	if _, err := io.ReadFull(r, first); err != nil || string(first) != "up\n" {
		t.Fatalf("first line %q, %v", first, err)
	}
	go k.Stop(t.Context(), time.Minute)
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "bye\n" {
		t.Errorf("the log ends with %q (%v), want bye", rest, err)
	}
	if e := wait(t, k); e.Code != 0 {
		t.Errorf("exit code %d, want 0", e.Code)
	}
}

func TestHostPathsAreTheNodes(t *testing.T) {
	c := start(t, "n1")
	n, _ := c.net.Node("n1")
	for path, want := range map[string]string{
		"/var/run/ztunnel": "nodes/n1/run/ztunnel", "/run/x": "nodes/n1/run/x", "/opt/cni/bin": "nodes/n1/opt/cni/bin", "/var/lib/ambit/objects": "objects",
	} {
		if got, err := c.run.HostPath(n, path, false); err != nil || got != filepath.Join(c.state, want) {
			t.Errorf("HostPath(%s) = %s, %v, want %s", path, got, err, want)
		}
	}
	for _, path := range []string{"/", "/etc", "/home", "/var/run/../../etc/shadow", "/optional"} {
		if got, err := c.run.HostPath(n, path, false); err == nil {
			t.Errorf("HostPath(%s) = %s, want an error", path, got)
		}
	}
}
