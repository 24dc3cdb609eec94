package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
)

// nodeOf makes the node's own view of itself, as /proc shows it: its root, and what runs there with which words.
func (w *world) nodeOf(commands ...string) (root string) {
	w.t.Helper()
	proc := w.t.TempDir()
	root = filepath.Join(proc, "1", "root")
	must(w.t, os.MkdirAll(filepath.Join(root, "run"), 0o700))
	for i, c := range commands {
		at := filepath.Join(proc, []string{"7", "8", "9"}[i])
		must(w.t, os.MkdirAll(at, 0o700))
		must(w.t, os.WriteFile(filepath.Join(at, "cgroup"), []byte("0::/system.slice/x.service\n"), 0o600))
		must(w.t, os.WriteFile(filepath.Join(at, "cmdline"), []byte(c), 0o600))
	}
	w.conf.ProcDir, w.conf.VerifyHost = proc, true
	return root
}

// The runtime's directory of namespaces is mounted nowhere for the agent, and behind a link that leads elsewhere outside the node.
func TestNamespaceByItsNameOnTheNode(t *testing.T) {
	w := newWorld(t)
	root := w.nodeOf("containerd\x00")
	must(t, os.MkdirAll(filepath.Join(root, "var"), 0o700))
	must(t, os.Symlink("/run", filepath.Join(root, "var", "run")))
	w.zt.Metadata.UID = "01402a5c-0aec-4835-b6f8-b49bf59d4350" // the proxy's pod is found by its process
	w.api.Put(w.zt.running())
	must(t, os.MkdirAll(filepath.Join(w.conf.ProcDir, "20", "ns"), 0o700))
	must(t, os.WriteFile(filepath.Join(w.conf.ProcDir, "20", "cgroup"), []byte("0::/kubepods/pod"+w.zt.Metadata.UID+"/c\n"), 0o600))
	must(t, os.Symlink(filepath.Join(w.conf.NetnsDir, "zt"), filepath.Join(w.conf.ProcDir, "20", "ns", "net")))
	w.conf.NetnsDir = filepath.Join(root, "run", "netns")
	must(t, os.Mkdir(w.conf.NetnsDir, 0o700))
	p := w.pod("p", "u1", "10.0.0.1")
	q := w.pod("q", "u2", "10.0.0.2")
	must(t, os.MkdirAll(filepath.Join(w.conf.ProcDir, "30", "ns"), 0o700))
	must(t, os.Symlink(filepath.Join(w.conf.NetnsDir, "u2"), filepath.Join(w.conf.ProcDir, "30", "ns", "net")))
	w.conf.NetnsDir = filepath.Join(t.TempDir(), "missing")
	w.api.Put(p.Object)
	w.api.Put(q.Object)
	w.conf.VerifyHost = false // not what this is about
	w.start()
	w.proxy(fakeztunnel.Yes).Expect(t, "snapshot")
	w.conf.NetnsDir = "/var/run/netns" // as the plugin says
	if status, text := p.event(); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	if !p.captured() {
		t.Error("not captured")
	}
	if status, text := q.eventOf("/proc/30/ns/net"); status != 200 { // as cri-dockerd names it
		t.Fatalf("%d %s", status, text)
	}
	if !q.captured() {
		t.Error("not captured")
	}
}

func TestDirectoriesThatTheRuntimeDoesNotUse(t *testing.T) {
	w := newWorld(t)
	root := w.nodeOf("/usr/bin/containerd\x00--config\x00/c.toml\x00")
	must(t, os.WriteFile(filepath.Join(root, "c.toml"), []byte("conf_dir = \"/other/net.d\"\nbin_dir = \"/bin\"\n"), 0o600))
	must(t, os.MkdirAll(filepath.Join(root, "other", "net.d"), 0o700))
	must(t, os.Symlink(w.conf.BinDir, filepath.Join(root, "bin"))) // leads out of the node, and so to nothing
	w.start()
	var text string
	wait(t, "word of what is wrong", func() bool {
		_, text = page(t, w.conf.Health, "/readyz")
		return strings.Contains(text, "cniConfDir")
	})
	for _, want := range []string{"set cniConfDir (values.cni.cniConfDir) to /other/net.d", "set cniBinDir (values.cni.cniBinDir) to /bin", "not ready"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}
