// Package precheck decides from what a cluster says of itself what of a mesh will not work there.
package precheck

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Object is one of the cluster's.
type Object = unstructured.Unstructured

// Facts are what was found. Lists may be nil where Unknown says why.
type Facts struct {
	// Version is the API server's, such as v1.34.4.
	Version string
	// Platform of the nodes and by what it was told; "" for none that needs settings.
	Platform, PlatformWhy string
	// Namespace is where the mesh is to be.
	Namespace string
	// Nodes, Namespaces and the rest are the cluster's objects; HostNetwork the pods in the network of their node, Labelled the pods
	// that have the label of the mesh themselves.
	Nodes, Namespaces, NetworkPolicies, DaemonSets, Deployments, HostNetwork, Labelled []Object
	// Cilium is its configuration; nil for none. CalicoBPF says that Calico's data plane is eBPF.
	Cilium    map[string]string
	CalicoBPF bool
	// Forbidden are verbs and resources that this account may not.
	Forbidden []string
	// Foreign says what is there already and not ours.
	Foreign []string
	// Definitions are those that others have made, beside ours.
	Definitions []Definition
	// Refused is what the API server said of pods such as ours, by name.
	Refused map[string]string
	// Unknown is what could not be looked at, and why.
	Unknown []string
}

// Definition is a custom resource definition of others, and ours.
type Definition struct{ Theirs, Ours *Object }

// Level says how bad it is.
type Level int

const (
	// Info is worth knowing.
	Info Level = iota
	// Risk works, but not for everything.
	Risk
	// Fails will not work.
	Fails
)

// Finding is something that one should know before installing.
type Finding struct {
	Level Level
	// What was found, Why it matters, and what to Do.
	What, Why, Do string
}

// Check lists what was found, the worst first.
func Check(f Facts) []Finding {
	var all []Finding
	for _, check := range []func(Facts) []Finding{
		version, permissions, others, definitions, refused, security, nodes, platform, cilium, calico, aws, multus, policies, hostNetwork, unknown,
	} {
		all = append(all, check(f)...)
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return int(b.Level - a.Level) })
	return all
}

func unknown(f Facts) []Finding {
	var all []Finding
	for _, u := range f.Unknown {
		all = append(all, Finding{Risk, "not looked at: " + u, "what hides there is not known", "run this with an account that may read it"})
	}
	return all
}

// text is a string of an object by its path.
func text(o *Object, path ...string) string {
	s, _, _ := unstructured.NestedString(o.Object, path...)
	return s
}

// some are the first names, and how many more there are.
func some(names []string) string {
	slices.Sort(names)
	names = slices.Compact(names)
	const most = 4
	if len(names) <= most {
		return join(names)
	}
	return fmt.Sprintf("%s and %d more", join(names[:most]), len(names)-most)
}

func join(names []string) string {
	out := ""
	for i, n := range names {
		if i > 0 {
			out += ", "
		}
		out += n
	}
	return out
}
