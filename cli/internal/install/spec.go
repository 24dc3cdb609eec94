package install

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/manifests"
)

// tree is YAML as read.
type tree = map[string]any

// Options are what the user said of the installation.
type Options struct {
	// Files are IstioOperator documents by name; Set are path=value, and win over them.
	Files []File
	Set   []string
	// Revision of the control plane. Default "", the only one.
	Revision string
}

// File is something that was read, and from where.
type File struct {
	Name string
	YAML []byte
}

// specKeys are the keys of an IstioOperator's spec.
func specKeys() []string {
	return []string{"profile", "hub", "tag", "revision", "namespace", "meshConfig", "components", "values"}
}

// specOf merges what the user said over the profile that it names, which is over the profile default.
func specOf(o Options) (spec tree, profile string, err error) {
	user := tree{}
	for _, f := range o.Files {
		var doc struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Spec       tree   `json:"spec"`
		}
		if err := yaml.Unmarshal(f.YAML, &doc); err != nil {
			return nil, "", fmt.Errorf("%s: %w", f.Name, err)
		}
		if doc.Kind != "IstioOperator" {
			return nil, "", fmt.Errorf("%s: want an IstioOperator (apiVersion install.istio.io/v1alpha1), found kind %q", f.Name, doc.Kind)
		}
		if err := checkKeys(f.Name+": spec.", doc.Spec, specKeys()); err != nil {
			return nil, "", err
		}
		user = merge(user, doc.Spec)
	}
	for _, s := range o.Set {
		t, err := parseSet(s)
		if err != nil {
			return nil, "", err
		}
		user = merge(user, t)
	}
	if o.Revision != "" {
		user["revision"] = o.Revision
	}
	profile, _ = user["profile"].(string)
	if profile == "" {
		profile = "default"
	}
	spec = tree{}
	for _, name := range slices.Compact([]string{"default", profile}) {
		b, err := manifests.Profile(name)
		if err != nil {
			return nil, "", err
		}
		var doc struct {
			Spec tree `json:"spec"`
		}
		if err := yaml.Unmarshal(b, &doc); err != nil {
			return nil, "", fmt.Errorf("profile %s: %w", name, err)
		}
		spec = merge(spec, doc.Spec)
	}
	return merge(spec, user), profile, nil
}

// parseSet reads path=value as istioctl and helm write it: paths of an IstioOperator, values with or without the word.
func parseSet(s string) (tree, error) {
	t, err := strvals.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("--set %s: %w", s, err)
	}
	out := tree{}
	for key, value := range t {
		switch {
		case key == "platform":
			out = merge(out, tree{"values": tree{"global": tree{"platform": value}}})
		case slices.Contains(specKeys(), key):
			out = merge(out, tree{key: value})
		case slices.Contains(valueKeys(), key):
			out = merge(out, tree{"values": tree{key: value}})
		default:
			return nil, fmt.Errorf("--set %s: %s", s, unknown(key, append(valueKeys(), specKeys()...)))
		}
	}
	return out, nil
}

// valueKeys are the keys of an IstioOperator's values.
func valueKeys() []string {
	return []string{"global", "pilot", "cni", "ztunnel", "gateways", "base", "meshConfig", "profile", "revision", "defaultRevision", "platform"}
}

func checkKeys(where string, t tree, known []string) error {
	for _, key := range slices.Sorted(maps.Keys(t)) {
		if !slices.Contains(known, key) {
			return fmt.Errorf("%s%s: %s", where, key, unknown(key, known))
		}
	}
	return nil
}

// merge puts b over a. Lists of things with names are merged by name, or by position where they have none.
func merge(a, b tree) tree {
	out := maps.Clone(a)
	if out == nil {
		out = tree{}
	}
	for key, value := range b {
		out[key] = over(out[key], value)
	}
	return out
}

func over(a, b any) any {
	switch b := b.(type) {
	case map[string]any:
		if a, ok := a.(map[string]any); ok {
			return merge(a, b)
		}
	case []any:
		if a, ok := a.([]any); ok && named(a) {
			return overList(a, b)
		}
	}
	return b
}

func named(list []any) bool {
	return len(list) > 0 && !slices.ContainsFunc(list, func(e any) bool { return nameOf(e) == "" })
}

func nameOf(e any) string {
	t, _ := e.(map[string]any)
	name, _ := t["name"].(string)
	return name
}

func overList(a, b []any) []any {
	out := slices.Clone(a)
	for i, e := range b {
		at := i
		if name := nameOf(e); name != "" {
			at = slices.IndexFunc(out, func(o any) bool { return nameOf(o) == name })
		}
		switch {
		case e == nil: // a hole that a higher index left
		case at >= 0 && at < len(out):
			out[at] = over(out[at], e)
		default:
			out = append(out, e)
		}
	}
	return out
}

// at is what a tree has under a path.
func at(t tree, path ...string) any {
	var v any = t
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func text(v any) string {
	if v == nil {
		return ""
	}
	return strings.TrimSpace(fmt.Sprint(v))
}

func subtree(t tree, path ...string) tree {
	m, _ := at(t, path...).(map[string]any)
	return m
}
