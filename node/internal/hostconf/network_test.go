package hostconf

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/node/cniplugin"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// files is the content of a directory.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	all := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		all[e.Name()] = string(b)
	}
	return all
}

// used is what a runtime would call for a pod: the types of the plugins of the first configuration that it can read.
func used(t testing.TB, dir string) string {
	t.Helper()
	names, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	must(t, err)
	for _, n := range names {
		list, err := libcni.ConfListFromFile(n)
		if !strings.HasSuffix(n, ".conflist") {
			var one *libcni.PluginConfig
			if one, err = libcni.ConfFromFile(n); err == nil {
				list, err = libcni.ConfListFromConf(one)
			}
		}
		if err != nil {
			continue
		}
		var types []string
		for _, p := range list.Plugins {
			types = append(types, p.Network.Type)
		}
		return strings.Join(types, " ")
	}
	return ""
}

const (
	bridge = "{ \"cniVersion\":\"0.4.0\",\n \"name\": \"net\", \"type\": \"bridge\", \"ipam\": {\"type\":\"host-local\"} }\n"
	multus = `{"name":"multus-cni-network","type":"multus","clusterNetwork":"/host/etc/cni/net.d/10-calico.conflist"}`
)

func TestWhatARuntimeUsesHasThePlugin(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		owned string
		want  string
	}{
		{name: "one list", files: map[string]string{"10-calico.conflist": calico}, want: "calico portmap istio-cni"},
		{name: "the first of two", files: map[string]string{"10-a.conflist": calico, "20-b.conflist": calico}, want: "calico portmap istio-cni"},
		{name: "one plugin", files: map[string]string{"10-bridge.conf": bridge}, want: "bridge istio-cni"},
		{name: "one plugin of another ending", files: map[string]string{"10-bridge.json": bridge}, want: "bridge istio-cni"},
		{name: "one plugin before a list", files: map[string]string{"00-multus.conf": multus, "10-calico.conflist": calico}, want: "multus istio-cni"},
		{name: "what cannot be read is not used", files: map[string]string{"00-x.conflist": "{", "01-y.conf": calico, "10-calico.conflist": calico}, want: "calico portmap istio-cni"},
		{name: "our own file", owned: "02-istio-cni.conflist", files: map[string]string{"10-calico.conflist": calico}, want: "calico portmap istio-cni"},
		{name: "our own file of one plugin", owned: "02-istio-cni.conflist", files: map[string]string{"10-bridge.conf": bridge}, want: "bridge istio-cni"},
		{name: "a list of an earlier installation", files: map[string]string{"10-a.conflist": `{"name":"n","plugins":[{"type":"istio-cni","kubernetes":{}},{"type":"ptp"}]}`}, want: "ptp istio-cni"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, _, _ := host(t)
			k.conf.Owned = c.owned
			for n, text := range c.files {
				must(t, os.WriteFile(filepath.Join(k.conf.ConfDir, n), []byte(text), 0o644))
			}
			for range 2 {
				must(t, k.Install())
			}
			if got := used(t, k.conf.ConfDir); got != c.want {
				t.Errorf("a runtime calls %q, want %q, of %v", got, c.want, files(t, k.conf.ConfDir))
			}
			if c.owned != "" { // CN-04: the node's own plugin writes its configuration anew before any agent runs
				for n, text := range c.files {
					must(t, os.WriteFile(filepath.Join(k.conf.ConfDir, n), []byte(text), 0o644))
				}
				if got := used(t, k.conf.ConfDir); got != c.want {
					t.Errorf("CN-04: a runtime calls %q after a reboot", got)
				}
			}
			must(t, k.Uninstall())
			got := files(t, k.conf.ConfDir)
			if strings.Contains(c.name, "earlier") {
				return
			}
			for n, text := range c.files {
				if got[n] != text {
					t.Errorf("CN-16: %s is %q after uninstalling, was %q", n, got[n], text)
				}
			}
			if len(got) != len(c.files) {
				t.Errorf("CN-16: left over: %v", got)
			}
		})
	}
}

// A program that writes its own one-plugin configuration anew is followed; what it wrote last comes back in the end.
func TestRewrittenSingleConfiguration(t *testing.T) {
	k, _, _ := host(t)
	path := filepath.Join(k.conf.ConfDir, "10-bridge.conf")
	must(t, os.WriteFile(path, []byte(bridge), 0o644))
	must(t, k.Install())
	newer := strings.Replace(bridge, "host-local", "dhcp", 1)
	must(t, os.WriteFile(path, []byte(newer), 0o644))
	must(t, k.Install())
	if got := used(t, k.conf.ConfDir); got != "bridge istio-cni" {
		t.Errorf("a runtime calls %q", got)
	}
	must(t, k.Uninstall())
	if got := files(t, k.conf.ConfDir); len(got) != 1 || got["10-bridge.conf"] != newer {
		t.Errorf("CN-16: %v", got)
	}
}

// Another program that undoes every change does not keep the node busy, and is told of.
func TestFightingProgram(t *testing.T) {
	k, list, _ := host(t)
	var err error
	for range 3 * calmWrites {
		must(t, os.WriteFile(list, []byte(calico), 0o644))
		if err = k.Install(); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "another program undoes") || k.Installed() {
		t.Errorf("Install = %v", err)
	}
	k.writes[calmWrites-1] = k.writes[calmWrites-1].Add(-2 * retryAfter)
	must(t, k.Install()) // the plugin comes back all the same
}

// CN-13, F12: directories that are full or cannot be written leave the old files whole, and somebody hears of it.
func TestCN13FullOrReadOnly(t *testing.T) {
	netnstest.Need(t)
	for _, c := range []struct {
		name string
		bad  func(dir string)
		err  error
	}{
		{"full", func(dir string) { fill(t, filepath.Join(dir, "filler")) }, unix.ENOSPC},
		{"read-only", func(dir string) { must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")) }, unix.EROFS},
	} {
		for _, where := range []string{"bin", "conf"} {
			t.Run(c.name+" "+where, func(t *testing.T) {
				k, list, bin := host(t)
				dir := map[string]string{"bin": k.conf.BinDir, "conf": k.conf.ConfDir}[where]
				must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
				t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
				must(t, os.WriteFile(list, []byte(calico), 0o644))
				must(t, os.WriteFile(bin, []byte("an older program"), 0o755))
				c.bad(dir)
				err := k.Install()
				if !errors.Is(err, c.err) || !strings.Contains(err.Error(), dir) && where == "conf" {
					t.Errorf("CN-13: Install = %v, want %v and the directory", err, c.err)
				}
				if k.Installed() {
					t.Error("CN-13: it counts as installed")
				}
				got, program := files(t, k.conf.ConfDir), files(t, k.conf.BinDir)
				if where == "conf" && got["10-calico.conflist"] != calico || where == "bin" && program[PluginType] != "an older program" {
					t.Errorf("CN-13: the old file is not whole: %q, %q", got, program)
				}
				for name := range files(t, dir) {
					if strings.HasPrefix(name, ours) {
						t.Errorf("CN-13: %s is left over", name)
					}
				}
				if err := k.Uninstall(); where == "conf" && got["10-calico.conflist"] != calico && err == nil {
					t.Error("CN-13: uninstalling says that it worked")
				}
			})
		}
	}
}

func fill(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// Links do not lead the agent, which is root, to files elsewhere.
func TestLinksLeadNowhere(t *testing.T) {
	k, list, bin := host(t)
	secret := filepath.Join(t.TempDir(), "10-secret.conflist")
	must(t, os.WriteFile(secret, []byte(calico), 0o600))
	must(t, os.Symlink(secret, list))
	if err := k.Install(); err == nil {
		t.Error("a configuration elsewhere is used")
	}
	must(t, os.Remove(list))
	must(t, os.WriteFile(list, []byte(calico), 0o644))
	must(t, os.Remove(bin))
	must(t, os.Symlink(secret, bin))
	must(t, k.Install())
	if st, err := os.Lstat(bin); err != nil || !st.Mode().IsRegular() {
		t.Errorf("the plugin is %v, %v", st, err)
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != calico {
		t.Errorf("what a link leads to was changed: %v", err)
	}
	must(t, os.Remove(list))
	must(t, unix.Mkfifo(list, 0o644))
	if err := k.Install(); err == nil {
		t.Error("a pipe passes for a configuration")
	}
}

// CN-02: what an agent left that was killed while it wrote is removed.
func TestUnfinishedFilesAreRemoved(t *testing.T) {
	k, list, _ := host(t)
	must(t, os.WriteFile(list, []byte(calico), 0o644))
	for _, dir := range []string{k.conf.BinDir, k.conf.ConfDir} {
		must(t, os.WriteFile(filepath.Join(dir, ours+"0123"), []byte("half"), 0o600))
	}
	must(t, k.Install())
	if n := len(files(t, k.conf.BinDir)) + len(files(t, k.conf.ConfDir)); n != 2 {
		t.Errorf("CN-02: %d files, want the plugin and the list", n)
	}
}

// The configuration vanishes with its directory and comes back.
func TestVanishingDirectory(t *testing.T) {
	k, list, _ := host(t)
	var said []Result
	k.conf.Installed = func(r Result) { said = append(said, r) }
	must(t, os.WriteFile(list, []byte(calico), 0o644))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	eventually(t, "not installed", k.Installed)
	must(t, os.RemoveAll(k.conf.ConfDir))
	eventually(t, "it counts as installed without a configuration", func() bool { return !k.Installed() })
	must(t, os.Mkdir(k.conf.ConfDir, 0o755))
	must(t, os.WriteFile(list, []byte(calico), 0o644))
	eventually(t, "not installed again", k.Installed)
	start := time.Now()
	must(t, os.WriteFile(list, []byte(calico), 0o644))
	eventually(t, "the new directory is not watched", func() bool { return used(t, k.conf.ConfDir) == "calico portmap istio-cni" })
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a change was seen after %v", took)
	}
	cancel()
	must(t, <-done)
	if said[0] != Success || said[len(said)-1] != Success || len(said) < 3 {
		t.Errorf("results: %v", said)
	}
}

// The plugin is left what it needs to ask the API server, for root alone, and it follows the token.
func TestAccess(t *testing.T) {
	k, list, _ := host(t)
	must(t, os.WriteFile(list, []byte(calico), 0o644))
	token := filepath.Join(t.TempDir(), "token")
	k.conf.APIServer, k.conf.TokenFile = "https://10.96.0.1:443", token
	k.conf.Log = slog.New(slog.DiscardHandler)
	if err := k.Install(); err == nil || k.Installed() {
		t.Error("installed without a token")
	}
	path := filepath.Join(k.conf.AgentRunDir, cniplugin.Kubeconfig)
	for _, want := range []string{"one", "two"} {
		must(t, os.WriteFile(token, []byte(want+"\n"), 0o600))
		must(t, k.Install())
		b, err := os.ReadFile(path)
		must(t, err)
		var a cniplugin.Access
		must(t, json.Unmarshal(b, &a))
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 || a.Users[0].User.Token != want {
			t.Errorf("%v, %v: %s", st.Mode(), err, b)
		}
	}
	// One of the plugin's own comes before the agent's, is seen at once, and is known again by the next agent.
	own, renewed := "", make(chan struct{})
	k.conf.Token, k.conf.Renewed = func() string { return own }, renewed
	must(t, k.Install())
	if got := k.Left(); got != "two" {
		t.Errorf("without one of its own the plugin has %q", got)
	}
	own = "its-own"
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	renewed <- struct{}{} // once it has looked
	renewed <- struct{}{} // once it has looked again
	cancel()
	must(t, <-done)
	if got := k.Left(); got != own {
		t.Errorf("the plugin has %q", got)
	}
	for _, bad := range []string{"", "{", `{"users":[]}`, `[]`} {
		must(t, os.WriteFile(path, []byte(bad), 0o600))
		if got := k.Left(); got != "" {
			t.Errorf("%q holds %q", bad, got)
		}
	}
	must(t, os.Chmod(path, 0o644))
	must(t, k.Install())
	must(t, k.Uninstall())
	if got := k.Left(); got != "" {
		t.Errorf("CN-16: left %q", got)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("CN-16: a token is left on the host")
	}
}
