package precheck

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// number reads the first two numbers of a version, such as v1.34.4-gke.1 or 5.15.0-91-generic.
func number(version string) (major, minor int, ok bool) {
	digits := func(s string) string {
		return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	}
	a, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	major, err1 := strconv.Atoi(digits(a))
	minor, err2 := strconv.Atoi(digits(rest))
	return major, minor, err1 == nil && err2 == nil
}

func version(f Facts) []Finding {
	const oldest = 28
	major, minor, ok := number(f.Version)
	if !ok || major > 1 || major == 1 && minor >= oldest {
		return nil
	}
	return []Finding{{Fails, "Kubernetes " + f.Version, fmt.Sprintf("the mesh needs 1.%d or newer: older API servers lack what its definitions and rights are written with", oldest), "upgrade the cluster"}}
}

func permissions(f Facts) []Finding {
	if len(f.Forbidden) == 0 {
		return nil
	}
	return []Finding{{
		Fails, "your account may not: " + some(f.Forbidden),
		"an installation makes these objects, and gives its parts the rights that they need", "install with an account that is bound to the cluster role cluster-admin",
	}}
}

func others(f Facts) []Finding {
	var all []Finding
	for _, what := range f.Foreign {
		all = append(all, Finding{Fails, what, "ambit install does not take over what others have made", "see above; then install"})
	}
	for _, d := range f.Deployments {
		if d.GetLabels()["app"] == "istiod" && d.GetNamespace() != f.Namespace {
			all = append(all, Finding{
				Fails, fmt.Sprintf("Deployment %s/%s is another control plane", d.GetNamespace(), d.GetName()),
				"both would write istio-ca-root-cert into every namespace, and proxies would trust now the one and now the other", "uninstall it first",
			})
		}
	}
	var injected []string
	for _, ns := range f.Namespaces {
		if l := ns.GetLabels(); l["istio-injection"] == "enabled" || l["istio.io/rev"] != "" && ns.GetName() != f.Namespace {
			injected = append(injected, ns.GetName())
		}
	}
	if len(injected) > 0 {
		all = append(all, Finding{
			Info, "namespaces marked for sidecars: " + some(injected), "there are no sidecars here: those labels have no effect, and pods that still run with one are left alone",
			"kubectl label namespace NAME istio-injection- istio.io/rev- istio.io/dataplane-mode=ambient, then restart the pods",
		})
	}
	return all
}

func definitions(f Facts) []Finding {
	var all []Finding
	for _, d := range f.Definitions {
		name := d.Ours.GetName()
		if missing := versionsOf(d.Ours).without(versionsOf(d.Theirs)); len(missing) > 0 {
			all = append(all, Finding{
				Fails, fmt.Sprintf("definition %s of others does not serve %s", name, some(missing)), "what is written in that version is not taken, and the control plane cannot read it",
				"have whoever made it upgrade it, or delete it if nothing uses it: kubectl delete crd " + name,
			})
			continue
		}
		fields := fieldsOf(d.Ours)
		maps.DeleteFunc(fields, func(path string, _ bool) bool { return strings.HasSuffix(path, everything) })
		have := fieldsOf(d.Theirs)
		maps.DeleteFunc(fields, func(path string, _ bool) bool { return keeps(have, path) })
		if len(fields) > 0 {
			all = append(all, Finding{
				Risk, fmt.Sprintf("definition %s of others lacks %d fields, such as %s", name, len(fields), slices.Min(slices.Collect(maps.Keys(fields)))),
				"the API server drops them without a word: what is written in them has no effect", "have whoever made it upgrade it",
			})
		}
	}
	return all
}

type names []string

func (n names) without(other names) []string {
	return slices.DeleteFunc(slices.Clone(n), func(s string) bool { return slices.Contains(other, s) })
}

func eachVersion(crd *Object, f func(name string, schema map[string]any)) {
	spec, _ := crd.Object["spec"].(map[string]any)
	list, _ := spec["versions"].([]any)
	for _, e := range list {
		v, _ := e.(map[string]any)
		if served, _ := v["served"].(bool); served {
			name, _ := v["name"].(string)
			schema, _ := v["schema"].(map[string]any)
			open, _ := schema["openAPIV3Schema"].(map[string]any)
			f(name, open)
		}
	}
}

func versionsOf(crd *Object) (all names) {
	eachVersion(crd, func(name string, _ map[string]any) { all = append(all, name) })
	return all
}

// keeps reports whether a definition keeps a field, by its name or because it keeps whatever is there.
func keeps(have map[string]bool, path string) bool {
	if have[path] {
		return true
	}
	for i := strings.LastIndexAny(path, ".["); i >= 0; i = strings.LastIndexAny(path, ".[") {
		if path = path[:i]; have[path+everything] {
			return true
		}
	}
	return false
}

// everything ends the path of what is kept whatever it is.
const everything = "…"

// fieldsOf are the paths of everything under spec that a definition keeps.
func fieldsOf(crd *Object) map[string]bool {
	all := map[string]bool{}
	eachVersion(crd, func(version string, schema map[string]any) {
		properties, _ := schema["properties"].(map[string]any)
		spec, _ := properties["spec"].(map[string]any)
		walk(spec, version+" spec", 0, all)
	})
	return all
}

func walk(schema map[string]any, path string, depth int, all map[string]bool) {
	if depth > 32 { // no schema of a definition is recursive
		return
	}
	if open, _ := schema["x-kubernetes-preserve-unknown-fields"].(bool); open {
		all[path+everything] = true
	}
	if items, ok := schema["items"].(map[string]any); ok {
		walk(items, path+"[]", depth+1, all)
	}
	if values, ok := schema["additionalProperties"].(map[string]any); ok {
		walk(values, path+".*", depth+1, all)
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, p := range properties {
		below, _ := p.(map[string]any)
		all[path+"."+name] = true
		walk(below, path+"."+name, depth+1, all)
	}
}
