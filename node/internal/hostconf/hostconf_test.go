package hostconf

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const calico = `{
  "name": "k8s-pod-network", "cniVersion": "0.3.1",
  "ipam": {"plugins": ["not these"]},
  "plugins": [
    {"type": "calico", "policy": {"type": "k8s"}},
    { "type":"portmap",  "capabilities": {"portMappings": true}}
  ]
}
`

func TestInsertAndRemoveAreExact(t *testing.T) {
	plugin := []byte(`{"type":"istio-cni"}`)
	in, err := Insert([]byte(calico), plugin)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Plugins []struct{ Type string } `json:"plugins"`
	}
	if err := json.Unmarshal(in, &got); err != nil || len(got.Plugins) != 3 || got.Plugins[2].Type != PluginType {
		t.Fatalf("%v, %v in\n%s", got, err, in)
	}
	again, err := Insert(in, plugin)
	if err != nil || !bytes.Equal(again, in) {
		t.Errorf("inserting twice: %v\n%s", err, again)
	}
	out, err := Remove(in)
	if err != nil || string(out) != calico {
		t.Errorf("CN-16: removed is not what was there: %v\n%s", err, out)
	}
	// Whoever else wants to be last may come after it; first, or changed, it is put right.
	behind := []byte(`{"plugins":[{"type":"ptp"},{"type":"istio-cni"},{"type":"bandwidth"}]}`)
	if out, err := Insert(behind, plugin); err != nil || !bytes.Equal(out, behind) {
		t.Errorf("in its place: %v\n%s", err, out)
	}
	for _, wrong := range []string{
		`{"plugins":[{"type":"istio-cni"},{"type":"ptp"}]}`, `{"plugins":[{"type":"ptp"},{"type":"istio-cni","ambient_enabled":false}]}`,
		`{"plugins":[{"type":"ptp"},{"type":"istio-cni"},{"type":"istio-cni"}]}`,
	} {
		if out, err := Insert([]byte(wrong), plugin); err != nil || strings.Join(strings.Fields(string(out)), "") != `{"plugins":[{"type":"ptp"},{"type":"istio-cni"}]}` {
			t.Errorf("%s became %s, %v", wrong, out, err)
		}
	}
	first := []byte(`{"name":"x","plugins":[{"type":"istio-cni"},{"type":"ptp"}]}`)
	if out, err := Remove(first); err != nil || string(out) != `{"name":"x","plugins":[{"type":"ptp"}]}` {
		t.Errorf("first of the list: %v %s", err, out)
	}
	for _, bad := range []string{"", "{", "[]", `{"plugins":[]}`, `{"plugins":{}}`, `{"plugins":[1]}`, `{"plugins":[{"type":"istio-cni"}]}`} {
		if out, err := Insert([]byte(bad), plugin); err == nil {
			t.Errorf("Insert(%q) = %s", bad, out)
		}
	}
}

func FuzzInsert(f *testing.F) {
	f.Add(calico)
	f.Add(`{"plugins":[{"type":"a","plugins":[]},{"type":"istio-cni"}],"plugins":[{"type":"b"}]}`)
	f.Fuzz(func(t *testing.T, list string) {
		in, err := Insert([]byte(list), []byte(`{"type":"istio-cni"}`))
		if err == nil && !json.Valid(in) {
			t.Errorf("%q became %q", list, in)
		}
		made, err := List([]byte(list))
		if err != nil {
			return
		}
		if !json.Valid(made) {
			t.Errorf("%q became %q", list, made)
		}
		if in, err := Insert(made, []byte(`{"type":"istio-cni"}`)); err == nil && !json.Valid(in) {
			t.Errorf("%q became %q", made, in)
		}
	})
}

func host(t *testing.T) (*Keeper, string, string) {
	dir := t.TempDir()
	for _, d := range []string{"bin", "net.d"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	plugin := filepath.Join(dir, "ambit-cni")
	if err := os.WriteFile(plugin, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "net.d", "10-calico.conflist")
	k := New(Config{
		Plugin: plugin, BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"), RunDir: "/var/run/istio-cni", AgentRunDir: dir,
		ExcludeNamespaces: []string{"kube-system"}, PodNamespace: "istio-system", Log: slog.New(slog.DiscardHandler),
	})
	return k, list, filepath.Join(dir, "bin", PluginType)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func TestRunInstallsAndRepairs(t *testing.T) {
	k, list, bin := host(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	write := func() {
		if err := os.WriteFile(list, []byte(calico), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	chained := func() bool {
		b, err := os.ReadFile(list)
		return err == nil && strings.Contains(string(b), `"type":"istio-cni"`) && k.Installed()
	}
	if k.Installed() {
		t.Error("installed without any network configuration")
	}
	write()
	eventually(t, "the plugin was not chained into a configuration that came late", chained)
	write()
	eventually(t, "a rewritten configuration was not repaired", chained)
	if err := os.Remove(bin); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a removed plugin did not come back", func() bool {
		st, err := os.Stat(bin)
		return err == nil && st.Mode().Perm() == 0o755
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !chained() {
		t.Error("the end of the agent took the plugin out: pods could start uncaptured")
	}
	if err := k.Uninstall(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(list); err != nil || string(b) != calico {
		t.Errorf("CN-16: after uninstalling: %v\n%s", err, b)
	}
	if _, err := os.Stat(bin); err == nil {
		t.Error("the plugin is still there")
	}
}

func TestConfigurationKeepsItsMode(t *testing.T) {
	k, list, _ := host(t)
	if err := os.WriteFile(list, []byte(calico), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []func() error{k.Install, k.Uninstall} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(list)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("the file is %v now: what it holds may be secret", st.Mode())
		}
	}
}
