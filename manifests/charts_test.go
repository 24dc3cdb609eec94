package manifests

import (
	"bytes"
	"io/fs"
	"path"
	"strings"
	"testing"
)

// TestChartsShareTheirHelpersAndProfiles: helm reads nothing outside of a chart, so each has a copy.
func TestChartsShareTheirHelpersAndProfiles(t *testing.T) {
	read := func(f fs.FS, name string) []byte {
		t.Helper()
		b, err := fs.ReadFile(f, name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	charts, want := Charts(), read(Charts(), "istiod/templates/_ambit.tpl")
	entries, err := fs.ReadDir(onKubernetes, "profiles/values")
	if err != nil || len(entries) == 0 {
		t.Fatalf("no values of profiles: %v", err)
	}
	for _, chart := range []string{"base", "istiod", "cni", "ztunnel", "gateway"} {
		if !bytes.Equal(read(charts, chart+"/templates/_ambit.tpl"), want) {
			t.Errorf("chart %s has other helpers than istiod", chart)
		}
		for _, e := range entries {
			name := e.Name()
			if !strings.HasPrefix(name, "platform-") {
				name = "profile-" + name
			}
			if !bytes.Equal(read(charts, path.Join(chart, "files", name)), read(onKubernetes, "profiles/values/"+e.Name())) {
				t.Errorf("chart %s: files/%s is not manifests/profiles/values/%s", chart, name, e.Name())
			}
		}
	}
}
