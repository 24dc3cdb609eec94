package manifests

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write values.yaml and values.schema.json of the charts from their defaults")

type tree = map[string]any

// sections are the charts, and under which name a chart's values may stand too, as in Istio's.
func sections() map[string]string {
	return map[string]string{"base": "base", "istiod": "pilot", "cni": "cni", "ztunnel": "ztunnel", "gateway": "gateways"}
}

const preface = `## Values of the chart %CHART%: these are its defaults. Write only what you change: over the defaults lies a profile
## (profile: ambient), over that a platform (global.platform: gke, k3d, k3s, microk8s, minikube, openshift), over both what you write.
## An empty map or list takes what Kubernetes takes there; anything else that is not here is refused.

`

// valuesOf is values.yaml: the defaults as comments, for what stands there would lie over profile and platform.
func valuesOf(chart string, defaults []byte) []byte {
	var b bytes.Buffer
	b.WriteString(strings.ReplaceAll(preface, "%CHART%", chart))
	for line := range strings.Lines(string(defaults)) {
		switch text := strings.TrimLeft(line, " "); {
		case text == "\n":
			b.WriteString(line)
		case strings.HasPrefix(text, "# "):
			b.WriteString("#" + line[:len(line)-len(text)] + "#" + text[1:])
		default:
			b.WriteString("# " + line)
		}
	}
	return b.Bytes()
}

// free are values that Kubernetes or the mesh describe, and not a chart.
func free(key string) bool {
	return slices.Contains([]string{"resources", "updateStrategy", "seccompProfile", "meshConfig"}, key)
}

func choices(chart, key string) []any {
	switch {
	case key == "profile":
		return []any{"", "ambient", "demo"}
	case key == "platform":
		return []any{"", "gke", "k3d", "k3s", "microk8s", "minikube", "openshift"}
	case chart == "gateway" && key == "kind":
		return []any{"Deployment", "DaemonSet"}
	case key == "imagePullPolicy", key == "pullPolicy":
		return []any{"", "Always", "IfNotPresent", "Never"}
	}
	return nil
}

func schemaOf(chart, key string, value any) tree {
	if c := choices(chart, key); c != nil {
		return tree{"enum": c}
	}
	switch v := value.(type) {
	case map[string]any:
		if free(key) || len(v) == 0 {
			return tree{"type": "object"}
		}
		return closed(chart, v)
	case []any:
		return tree{"type": "array"}
	case bool:
		return tree{"type": "boolean"}
	case float64:
		return tree{"type": "integer", "minimum": 0}
	}
	return tree{"type": []any{"string", "number"}} // --set writes a number where a text is all digits
}

func closed(chart string, values tree) tree {
	properties := tree{}
	for key, v := range values {
		properties[key] = schemaOf(chart, key, v)
	}
	return tree{"type": "object", "additionalProperties": false, "properties": properties}
}

func defaultsOf(t *testing.T, chart string) (tree, []byte) {
	t.Helper()
	text, err := fs.ReadFile(Charts(), chart+"/files/defaults.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var v tree
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatalf("defaults of %s: %v", chart, err)
	}
	return v, text
}

// schemas are those of all charts. What is under global is for every chart, so each takes what any knows.
func schemas(t *testing.T) map[string][]byte {
	t.Helper()
	global := tree{"profile": ""}
	for chart := range sections() {
		d, _ := defaultsOf(t, chart)
		g, _ := d["global"].(tree)
		for key, v := range g {
			if m, ok := v.(tree); ok {
				both := maps.Clone(m)
				if before, ok := global[key].(tree); ok {
					maps.Copy(both, before)
				}
				v = both
			}
			global[key] = v
		}
	}
	all := map[string][]byte{}
	write := func(chart string, s tree) {
		s["$schema"] = "http://json-schema.org/draft-07/schema#"
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		all[chart] = append(text, '\n')
	}
	for chart, section := range sections() {
		d, _ := defaultsOf(t, chart)
		d["global"] = global
		values := closed(chart, d)
		top := tree{section: tree{"$ref": "#/$defs/values"}, "enabled": tree{"const": true}}
		for key := range d {
			top[key] = tree{"$ref": "#/$defs/values/properties/" + key}
		}
		write(chart, tree{"type": "object", "additionalProperties": false, "properties": top, "$defs": tree{"values": values}})
	}
	whole := tree{"global": closed("ambient", global)}
	for _, chart := range []string{"base", "istiod", "cni", "ztunnel"} {
		whole[chart] = tree{"type": "object", "properties": tree{"enabled": tree{"type": "boolean"}}} // the rest is for its own schema
	}
	write("ambient", tree{"type": "object", "additionalProperties": false, "properties": whole})
	return all
}

// TestValuesAreDocumented: values.yaml shows exactly the defaults, and values.schema.json knows exactly them.
func TestValuesAreDocumented(t *testing.T) {
	want := map[string][]byte{}
	for chart := range sections() {
		_, text := defaultsOf(t, chart)
		want[chart+"/values.yaml"] = valuesOf(chart, text)
	}
	for chart, text := range schemas(t) {
		want[chart+"/values.schema.json"] = text
	}
	for name, text := range want {
		path := filepath.Join("charts", name)
		if *update {
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s is not what files/defaults.yaml says (%v): go test ./manifests -run TestValuesAreDocumented -update", path, err)
		}
	}
}

// TestValuesCanBeUncommented: what values.yaml shows is YAML, and the same as the defaults.
func TestValuesCanBeUncommented(t *testing.T) {
	for chart := range sections() {
		text, err := fs.ReadFile(Charts(), chart+"/values.yaml")
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "# "); ok {
				b.WriteString(rest)
			}
		}
		var shown tree
		if err := yaml.Unmarshal([]byte(b.String()), &shown); err != nil {
			t.Fatalf("%s: %v", chart, err)
		}
		if d, _ := defaultsOf(t, chart); !equal(t, shown, d) {
			t.Errorf("%s: values.yaml shows other values than the defaults", chart)
		}
	}
}

func equal(t *testing.T, a, b any) bool {
	t.Helper()
	x, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}
