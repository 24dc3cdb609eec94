package install

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/manifests"
)

// umbrella are the charts as helm sees them after `helm dependency build`: those that the chart ambient names, and whose condition
// holds, are inside of it.
func umbrella(t *testing.T, values tree) fs.FS {
	t.Helper()
	b, err := fs.ReadFile(manifests.Charts(), "ambient/Chart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var meta struct {
		Dependencies []struct{ Name, Condition string } `json:"dependencies"`
	}
	if err := yaml.Unmarshal(b, &meta); err != nil {
		t.Fatal(err)
	}
	in := map[string]bool{"ambient": true}
	for _, d := range meta.Dependencies {
		on, said := at(values, strings.Split(d.Condition, ".")...).(bool)
		in[d.Name] = on || !said
	}
	all := fstest.MapFS{}
	err = fs.WalkDir(manifests.Charts(), ".", func(name string, d fs.DirEntry, err error) error {
		if chart, _, _ := strings.Cut(name, "/"); err != nil || d.IsDir() || !in[chart] {
			return err
		}
		b, err := fs.ReadFile(manifests.Charts(), name)
		if !strings.HasPrefix(name, "ambient/") {
			name = path.Join("ambient/charts", name)
		}
		all[name] = &fstest.MapFile{Data: b}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// plainly is an object without what says who installed it.
func plainly(o *Object) map[string]any {
	o = o.DeepCopy()
	labels := o.GetLabels()
	for _, l := range []string{labelManaged, labelRevision, "app.kubernetes.io/instance"} {
		delete(labels, l)
	}
	o.SetLabels(labels)
	return o.Object
}

// helm install of the umbrella chart and ambit install make the same objects.
func TestUmbrellaIsWhatIsInstalled(t *testing.T) {
	render := func(values tree) map[string]any {
		t.Helper()
		objects, err := byHelm(t, values)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]any{}
		for _, o := range objects {
			all[describe(o)] = plainly(o)
		}
		return all
	}
	planned := func(set ...string) map[string]any {
		p, err := Make(Source{Charts: manifests.Charts(), Version: "dev"}, Options{Set: append(set, "profile=ambient")})
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]any{}
		for _, o := range p.Objects() {
			if o.GetKind() != "Namespace" { // helm's --create-namespace
				all[describe(o)] = plainly(o)
			}
		}
		return all
	}
	if d := cmp.Diff(planned(), render(nil)); d != "" {
		t.Errorf("(-ambit +helm):\n%s", d)
	}
	// Settings for all, and for one.
	noBase := tree{"base": tree{"enabled": false}}
	got := render(merge(noBase, tree{"global": tree{"platform": "k3s", "hub": "example/mesh"}, "ztunnel": tree{"resources": tree{"requests": tree{"cpu": "500m"}}}}))
	want := planned(bare, "values.global.platform=k3s", "hub=example/mesh", `values.ztunnel.resources.requests.cpu=500m`)
	if names := slices.Sorted(maps.Keys(got)); len(names) != len(want) {
		t.Errorf("helm makes %v", names)
	}
	for name := range want {
		if strings.HasPrefix(name, "DaemonSet") {
			if d := cmp.Diff(want[name], got[name]); d != "" {
				t.Errorf("%s (-ambit +helm):\n%s", name, d)
			}
		}
	}
	// A part can be left out, and what no chart knows is refused.
	for name := range render(merge(noBase, tree{"ztunnel": tree{"enabled": false}})) {
		if strings.HasPrefix(name, "DaemonSet") && strings.HasSuffix(name, "/ztunnel") {
			t.Error("ztunnel.enabled=false installs it")
		}
	}
	for _, values := range []tree{{"istoid": tree{}}, {"istiod": tree{"imag": "x"}}, {"global": tree{"hubb": "x"}}} {
		if _, err := byHelm(t, merge(noBase, values)); err == nil {
			t.Errorf("helm takes %v", values)
		}
	}
}

func byHelm(t *testing.T, values tree) ([]*Object, error) {
	t.Helper()
	return render(umbrella(t, values), "ambient", release{name: "mesh", namespace: "istio-system", service: "Helm"}, values)
}
