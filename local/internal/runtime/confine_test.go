package runtime_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/local/internal/runtime"
	"github.com/ambit-mesh/ambit/local/internal/runtime/caps"
	"github.com/ambit-mesh/ambit/local/internal/runtime/view"
)

// The state is where pods could see it: /var/tmp is the machine's, unlike /tmp.
func TestPodsDoNotSeeTheState(t *testing.T) {
	c := start(t, "n1")
	state, err := os.MkdirTemp("/var/tmp", "ambit-state-")
	if err != nil {
		t.Skipf("no directory that pods see can be written: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	for name, text := range map[string]string{"pki/key": "secret", "mine/file": "mine"} {
		if err := os.MkdirAll(filepath.Join(state, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(state, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The pod is on the node of c, and its runtime knows one more directory to hide.
	c.run = runtime.New(runtime.Config{State: c.state, Bin: filepath.Dir(self), Self: self, Hidden: []string{state, filepath.Join(state, "missing")}})
	p := c.mustPod("n1", "curious")
	k, log := c.sh(p, "ls -A "+state+"; cat "+state+"/pki/key 2>/dev/null || echo hidden; umount "+state+" 2>/dev/null || echo stays; cat /mine/file; ls "+filepath.Dir(state)+" | grep -c ambit-state-",
		view.Mount{Source: filepath.Join(state, "mine"), Target: "/mine", ReadOnly: true})
	wait(t, k)
	if got := c.logOf(log); !strings.HasPrefix(got, "hidden\nstays\nmine\n") || strings.HasSuffix(got, "\n0\n") {
		t.Errorf("the pod saw:\n%s", got)
	}
}

func TestContainersHaveTheCapabilitiesGiven(t *testing.T) {
	c := start(t, "n1")
	p := c.mustPod("n1", "web")
	const want = caps.Set(1<<unix.CAP_NET_RAW | 1<<unix.CAP_CHOWN)
	script := `grep ^CapEff /proc/self/status; (echo x > /proc/sys/kernel/domainname) 2>/dev/null || echo sealed`
	const said = "CapEff:\t0000000000002001\nsealed\n"
	run := func(name, script string) *runtime.Container {
		k, err := p.Start(runtime.ContainerConfig{Name: name, Argv: []string{"sh", "-c", script}, Caps: want, Log: filepath.Join(c.state, name+".log")})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	wait(t, run("ends", script))
	if got := c.logOf(filepath.Join(c.state, "ends.log")); got != said {
		t.Errorf("the container has %q, want %q", got, said)
	}
	k := run("stays", "exec sleep 1000")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd, err := k.Exec(runtime.Command{Argv: []string{"sh", "-c", script}, Files: []*os.File{nil, w, w}})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if string(out) != said {
		t.Errorf("exec has %q, want %q", out, said)
	}
}

func TestNoLinkLeadsOutOfANode(t *testing.T) {
	c := start(t, "n1")
	n, _ := c.net.Node("n1")
	lib := filepath.Join(c.state, "nodes/n1/var/lib")
	for name, to := range map[string]string{"machine": "/etc", "up": "../../../../pki", "fine": "cni"} {
		if err := os.Symlink(to, filepath.Join(lib, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/var/lib/machine", "/var/lib/up", "/var/lib/machine/new"} {
		if got, err := c.run.HostPath(n, path, true); err == nil {
			t.Errorf("HostPath(%s) = %s, want an error", path, got)
		}
	}
	if got, err := c.run.HostPath(n, "/var/lib/fine", true); err != nil || got != filepath.Join(lib, "cni") {
		t.Errorf("HostPath(/var/lib/fine) = %s, %v", got, err)
	}
}
