package install

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// defaultsOf are the values that a chart knows.
func defaultsOf(charts fs.FS, chart string) (tree, error) {
	b, err := fs.ReadFile(charts, chart+"/files/defaults.yaml")
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", chart, err)
	}
	var t tree
	if err := yaml.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("chart %s: its defaults: %w", chart, err)
	}
	return t, nil
}

// checkValues refuses values that no chart knows. An empty map among the defaults takes any key, such as labels.
func checkValues(charts fs.FS, values tree) error {
	sections := map[string]string{"pilot": "istiod", "cni": "cni", "ztunnel": "ztunnel", "base": "base"}
	global := tree{}
	known := tree{"profile": "", "revision": "", "defaultRevision": "", "platform": "", "meshConfig": tree{}}
	for section, chart := range sections {
		t, err := defaultsOf(charts, chart)
		if err != nil {
			return err
		}
		global = merge(global, subtree(t, "global"))
		delete(t, "global")
		known[section] = t
	}
	gateway, err := defaultsOf(charts, "gateway")
	if err != nil {
		return err
	}
	global = merge(global, subtree(gateway, "global"))
	known["global"] = global
	gateway = merge(gateway, tree{"enabled": true})
	gateways := tree{}
	for name := range subtree(values, "gateways") {
		gateways[name] = gateway
	}
	known["gateways"] = gateways
	return errors.Join(strangers("values", values, known)...)
}

func strangers(where string, t, known tree) []error {
	var all []error
	for _, key := range slices.Sorted(maps.Keys(t)) {
		k, ok := known[key]
		path := where + "." + key
		if !ok {
			all = append(all, fmt.Errorf("%s: %s", path, unknown(key, slices.Sorted(maps.Keys(known)))))
			continue
		}
		sub, isMap := t[key].(map[string]any)
		below, open := k.(map[string]any)
		switch {
		case open && len(below) == 0: // takes any key
		case open && isMap:
			if !free(path) {
				all = append(all, strangers(path, sub, below)...)
			}
		case open && t[key] != nil:
			all = append(all, fmt.Errorf("%s: want a map, found %v", path, t[key]))
		case !open && isMap:
			all = append(all, fmt.Errorf("%s: want a single value or a list, found a map", path))
		}
	}
	return all
}

// free are values that Kubernetes itself describes, and not we.
func free(path string) bool {
	described := []string{".resources", ".requests", ".limits", ".updateStrategy", ".seccompProfile", ".proxyMetadata", ".meshConfig"}
	return slices.ContainsFunc(described, func(suffix string) bool { return strings.HasSuffix(path, suffix) })
}

func unknown(key string, known []string) string {
	if near, ok := kinds.Nearest(key, known); ok {
		return fmt.Sprintf("there is no %s; did you mean %s?", key, near)
	}
	return fmt.Sprintf("there is no %s", key)
}
