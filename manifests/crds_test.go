package manifests

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
)

// ours is what a folder of the base chart holds, by kind and name.
func ours(t *testing.T, dir string) map[string]map[string]any {
	t.Helper()
	files, err := fs.Glob(Charts(), "base/files/"+dir+"/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no definitions in %s: %v; make gen", dir, err)
	}
	all := map[string]map[string]any{}
	for _, f := range files {
		text, err := fs.ReadFile(Charts(), f)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(all, objects(t, f, text))
	}
	return all
}

func objects(t *testing.T, file string, text []byte) map[string]map[string]any {
	t.Helper()
	list, err := kubeapi.Objects(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	all := map[string]map[string]any{}
	for _, o := range list {
		key := o.GetKind() + " " + o.GetName()
		if all[key] != nil {
			t.Errorf("%s: %s is there twice", file, key)
		}
		all[key] = o.Object
	}
	return all
}

// module is where the source of a module is that go.mod names.
func module(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", name).Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Fatalf("where is %s: %v", name, err)
	}
	return dir
}

// Definitions are those of the modules that the code is built with, all of them and nothing else.
func TestDefinitionsAreThoseOfTheModules(t *testing.T) {
	for _, c := range []struct{ dir, module, files string }{
		{"crds", "istio.io/api", "kubernetes/customresourcedefinitions.gen.yaml"},
		{"gateway-api", "sigs.k8s.io/gateway-api", "config/crd/standard/*.yaml"},
	} {
		t.Run(c.dir, func(t *testing.T) {
			from := module(t, c.module)
			files, err := filepath.Glob(filepath.Join(from, c.files))
			if err != nil || len(files) == 0 {
				t.Fatalf("nothing at %s: %v", c.files, err)
			}
			want := map[string]map[string]any{}
			for _, f := range files {
				text, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				maps.Copy(want, objects(t, f, text))
			}
			got := ours(t, c.dir)
			if d := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); d != "" {
				t.Errorf("other definitions (-module +ours), make gen:\n%s", d)
			}
			for key := range want {
				if !cmp.Equal(want[key], got[key]) {
					t.Errorf("%s differs from the module's: make gen", key)
				}
			}
			license, err := os.ReadFile(filepath.Join(from, "LICENSE"))
			if err != nil {
				t.Fatal(err)
			}
			kept, err := fs.ReadFile(Charts(), path.Join("base/files", c.dir, "LICENSE"))
			if err != nil || !bytes.Equal(license, kept) {
				t.Errorf("the licence is not the module's: %v; make gen", err)
			}
		})
	}
}

// A real API server takes every definition, and then refuses by itself what their schemas and rules forbid.
func TestDefinitionsOnAnAPIServer(t *testing.T) {
	api := kubeapi.Start(t)
	client, err := dynamic.NewForConfig(api.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"crds", "gateway-api"} {
		all := ours(t, dir)
		for _, key := range slices.Sorted(maps.Keys(all)) {
			o := &unstructured.Unstructured{Object: all[key]}
			text, err := o.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if name, ok := strings.CutPrefix(key, "CustomResourceDefinition "); ok {
				api.Apply(string(text))
				api.Established(name)
			} else if gvr, ok := policies()[o.GetKind()]; !ok {
				t.Errorf("%s is not expected in %s", key, dir)
			} else if _, err := client.Resource(gvr).Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
	}
	for _, c := range []struct{ name, yaml, refused string }{
		{"a policy that is right", "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a, namespace: default}, spec: {action: DENY}}", ""},
		{"an unknown action", "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: b, namespace: default}, spec: {action: DENI}}", "spec.action"},
		{
			"selector and targetRef together", "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: c, namespace: default}, " +
				"spec: {selector: {matchLabels: {app: a}}, targetRefs: [{kind: Service, name: a}]}}", "only one of targetRefs or selector",
		},
		{"a port that is none", "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: d, namespace: default}, spec: {hosts: [a.example], ports: [{number: 70000, name: p}]}}", "spec.ports[0].number"},
		{
			"a redirect and a backend", "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: e, namespace: default}, " +
				"spec: {rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 80}]}]}}", "must not be used together with backendRefs",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, err := kubeapi.Objects(c.yaml)
			if err != nil {
				t.Fatal(err)
			}
			gvk := list[0].GroupVersionKind()
			_, err = client.Resource(gvk.GroupVersion().WithResource(kubeapi.Plural(gvk.Kind))).Namespace("default").
				Apply(t.Context(), list[0].GetName(), list[0], metav1.ApplyOptions{FieldManager: "test"})
			switch {
			case c.refused == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.refused != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.refused)):
				t.Errorf("error %v, want one that says %q", err, c.refused)
			}
		})
	}
}

// policies are the resources of the objects by which Gateway API guards its definitions.
func policies() map[string]schema.GroupVersionResource {
	v1 := schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"}
	return map[string]schema.GroupVersionResource{
		"ValidatingAdmissionPolicy":        v1.WithResource("validatingadmissionpolicies"),
		"ValidatingAdmissionPolicyBinding": v1.WithResource("validatingadmissionpolicybindings"),
	}
}
