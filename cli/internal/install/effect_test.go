package install

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/manifests"
)

func charts() []string { return []string{"base", "istiod", "cni", "ztunnel", "gateway"} }

// contexts are settings under which others of a chart matter.
func contexts(chart string) []tree {
	off := tree{"enableIstioConfigCRDs": false, "enableGatewayAPICRDs": false} // they are most of the work
	return map[string][]tree{
		"base":    {off, {}},
		"istiod":  {{"autoscaleMin": 2, "memory": tree{"targetAverageUtilization": 50}}, {"autoscaleEnabled": false, "replicaCount": 2}},
		"cni":     {{}, {"resourceQuotas": tree{"enabled": true}}},
		"ztunnel": {{}, {"resourceQuotas": tree{"enabled": true}}},
		"gateway": {{}, {"autoscaling": tree{"enabled": false}}},
	}[chart]
}

// leaf is a value of a chart, by its path.
type leaf struct {
	path  []string
	value any
}

func leavesOf(t tree, path ...string) []leaf {
	var all []leaf
	for _, key := range slices.Sorted(maps.Keys(t)) {
		at := append(slices.Clone(path), key)
		if m, ok := t[key].(map[string]any); ok && len(m) > 0 && !free("."+key) {
			all = append(all, leavesOf(m, at...)...)
			continue
		}
		all = append(all, leaf{at, t[key]})
	}
	return all
}

// other is a value that differs from the default, and that its schema takes.
func other(l leaf) any {
	switch key := l.path[len(l.path)-1]; key {
	case "profile":
		return "demo"
	case "platform":
		return "openshift"
	case "kind":
		return "DaemonSet"
	case "pullPolicy", "imagePullPolicy":
		return "Always"
	case "meshConfig":
		return tree{"trustDomain": "another"}
	case "excludedCRDs":
		return []any{"wasmplugins.extensions.istio.io"}
	case "imagePullSecrets", "excludeNamespaces":
		return []any{"another"}
	}
	switch v := l.value.(type) {
	case bool:
		return !v
	case float64, int64, int:
		return 77
	case map[string]any:
		return tree{"another": "thing"}
	case []any:
		return []any{tree{"name": "another", "port": 1234, "key": "another"}}
	}
	return "another"
}

func rendered(chart string, values tree) (string, error) {
	objects, err := render(manifests.Charts(), chart, release{name: "r", namespace: "istio-system", service: "Helm", version: "v1"}, values)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	err = Write(&b, objects)
	return b.String(), err
}

// Every value that a chart takes changes what it makes, or is refused with words that name it.
func TestEveryValueHasAnEffect(t *testing.T) {
	alike := map[string]bool{ // what people give to every chart alike
		"base.profile": true, "base.platform": true,
	}
	global := map[string]bool{}
	for _, chart := range charts() {
		defaults, err := defaultsOf(manifests.Charts(), chart)
		if err != nil {
			t.Fatal(err)
		}
		delete(defaults, "enabled")
		var before []string
		for _, c := range contexts(chart) {
			text, err := rendered(chart, c)
			if err != nil {
				t.Fatalf("%s with %v: %v", chart, c, err)
			}
			before = append(before, text)
		}
		for _, l := range leavesOf(defaults) {
			name := strings.Join(l.path, ".")
			effect := false
			for i, c := range contexts(chart) {
				text, err := rendered(chart, merge(c, nest(other(l), l.path...)))
				if err != nil && !strings.Contains(err.Error(), l.path[len(l.path)-1]) && !strings.Contains(err.Error(), "revision") {
					t.Errorf("%s: %s=%v fails without saying that it is this: %v", chart, name, other(l), err)
				}
				if effect = err != nil || text != before[i]; effect {
					break // to render a chart takes long
				}
			}
			if l.path[0] == "global" {
				global[name] = global[name] || effect
			} else if !effect && !alike[chart+"."+name] {
				t.Errorf("%s: %s=%v has no effect", chart, name, other(l))
			}
		}
	}
	for name, effect := range global {
		if !effect {
			t.Errorf("%s has no effect on any chart", name)
		}
	}
}

// What plain Helm is given, it refuses too where no chart knows it.
func TestHelmRefusesUnknownValues(t *testing.T) {
	for _, chart := range charts() {
		for _, values := range []tree{
			{"resorces": tree{}},
			{"global": tree{"hubb": "x"}},
			{section(chart): tree{"imag": "x"}},
			{"enabled": false},
			{"global": tree{"imagePullPolicy": "Sometimes"}},
		} {
			if _, err := rendered(chart, values); err == nil {
				t.Errorf("%s takes %v", chart, values)
			}
		}
		if _, err := rendered(chart, merge(contexts(chart)[0], tree{"global": tree{"tag": 12, "proxy": tree{"logLevel": "debug"}}, section(chart): tree{"profile": "ambient"}})); err != nil {
			t.Errorf("%s refuses what is right: %v", chart, err)
		}
	}
}

// What Istio's charts have and ours cannot do is refused, and the words say what to do instead.
func TestRefusals(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"revision=canary", "one control plane runs in a cluster"},
		{"values.defaultRevision=canary components.base.enabled=true", "one control plane runs in a cluster"},
		{"values.global.variant=debug", "one image of each component"},
		{"values.global.nativeNftables=false", "nftables rules"},
		{"values.global.network=n1", "the mesh is one network"},
		{"values.cni.ambient.ipv6=false", "IPv6"},
		{"values.cni.ambient.reconcileIptablesOnStartup=false", "leave it true"},
		{"values.cni.provider=multus", "leave provider out"},
	} {
		_, err := Make(Source{Charts: manifests.Charts()}, Options{Set: append([]string{"profile=ambient", bare}, strings.Fields(c.set)...)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("--set %s: error %v, want one with %q", c.set, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), ".yaml:") {
			t.Errorf("--set %s: %v speaks of templates", c.set, err)
		}
	}
	for _, set := range []string{"revision=default", "values.global.variant=distroless"} {
		if _, err := Make(Source{Charts: manifests.Charts()}, Options{Set: []string{"profile=ambient", bare, set}}); err != nil {
			t.Errorf("--set %s: %v", set, err)
		}
	}
}
