package hostconf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const owned = "02-istio-cni.conflist"

// An agent that is set up anew leaves one configuration with the plugin in it, and the others as their owners wrote them.
func TestOneConfigurationHasThePlugin(t *testing.T) {
	for _, c := range []struct {
		name   string
		files  map[string]string
		before string // what the earlier agent called its file
		after  string
		want   string // the file that has the plugin
	}{
		{"chained, now its own", map[string]string{"10-calico.conflist": calico}, "", owned, owned},
		{"a single one chained, now its own", map[string]string{"10-bridge.conf": bridge}, "", owned, owned},
		{"its own, now chained", map[string]string{"10-calico.conflist": calico}, owned, "", "10-calico.conflist"},
		{"its own, now by another name", map[string]string{"10-calico.conflist": calico}, owned, "05-mesh.conflist", "05-mesh.conflist"},
		{"another comes first by name", map[string]string{"00-multus.conflist": calico, "10-calico.conflist": calico}, owned, owned, "00-multus.conflist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, _, _ := host(t)
			for n, text := range c.files {
				must(t, os.WriteFile(filepath.Join(k.conf.ConfDir, n), []byte(text), 0o644))
			}
			for _, name := range []string{c.before, c.after, c.after} {
				k.conf.Owned = name
				must(t, k.Install())
				if got := used(t, k.conf.ConfDir); !strings.HasSuffix(got, " "+PluginType) || strings.Count(got, PluginType) != 1 {
					t.Fatalf("a runtime calls %q", got)
				}
			}
			for n, text := range files(t, k.conf.ConfDir) {
				if has := strings.Contains(text, PluginType); has != (n == c.want) {
					t.Errorf("%s has the plugin: %v", n, has)
				} else if !has && text != c.files[n] {
					t.Errorf("%s is not as its owner wrote it: %q", n, text)
				}
			}
			k.conf.Owned = "" // whoever uninstalls need not know
			must(t, k.Uninstall())
			got := files(t, k.conf.ConfDir)
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

// A file that comes before the agent's own appears while that is in place: the plugin goes where the runtime looks.
func TestConfigurationThatComesBeforeOurs(t *testing.T) {
	k, list, _ := host(t)
	k.conf.Owned = owned
	must(t, os.WriteFile(list, []byte(calico), 0o644))
	must(t, k.Install())
	must(t, os.WriteFile(filepath.Join(k.conf.ConfDir, "00-meta.conf"), []byte(multus), 0o644))
	must(t, k.Install())
	if got := used(t, k.conf.ConfDir); got != "multus istio-cni" {
		t.Errorf("a runtime calls %q", got)
	}
	must(t, k.Uninstall())
	if got := files(t, k.conf.ConfDir); len(got) != 2 || got["00-meta.conf"] != multus || got["10-calico.conflist"] != calico {
		t.Errorf("CN-16: %v", got)
	}
}

// Cilium renames whatever is not its own, unless told otherwise: somebody must hear which setting it is, and nothing stays behind.
func TestCiliumTakesOurFileAway(t *testing.T) {
	k, list, _ := host(t)
	k.conf.Owned = owned
	must(t, os.WriteFile(list, []byte(calico), 0o644))
	var err error
	for range 3 * calmWrites {
		if err = k.Install(); err != nil {
			break
		}
		must(t, os.Rename(filepath.Join(k.conf.ConfDir, owned), filepath.Join(k.conf.ConfDir, owned+ciliumBackup)))
	}
	if err == nil || !strings.Contains(err.Error(), "cni.exclusive") {
		t.Errorf("Install = %v", err)
	}
	must(t, k.Uninstall())
	if got := files(t, k.conf.ConfDir); len(got) != 1 || got["10-calico.conflist"] != calico {
		t.Errorf("CN-16: %v", got)
	}
}
