package ambient

import (
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/api/workload"
)

const annotationExportTo = "networking.istio.io/exportTo"

// exportTo reads to whom a Service is exported.
func exportTo(annotations map[string]string) []string {
	var out []string
	for word := range strings.SplitSeq(annotations[annotationExportTo], ",") {
		if word = strings.TrimSpace(word); word != "" {
			out = append(out, word)
		}
	}
	return out
}

// visibleTo says who sees a service: everybody, or its own namespace; exported is false where nobody does.
func visibleTo(exportTo []string, namespace string) (v workload.Service_Visibility, exported bool) {
	switch {
	case len(exportTo) == 0 || slices.Contains(exportTo, "*"):
		return workload.Service_PUBLIC, true
	case slices.Equal(exportTo, []string{"~"}):
		return workload.Service_PUBLIC, false
	case !slices.ContainsFunc(exportTo, func(s string) bool { return s != "." && s != namespace && s != "~" }):
		return workload.Service_NAMESPACE, true
	}
	return workload.Service_PUBLIC, true
}

// WiderThanAsked reports whether a service is seen by more than its exportTo names: a node proxy knows all namespaces, or
// the service's own.
func WiderThanAsked(exportTo []string, namespace string) bool {
	v, exported := visibleTo(exportTo, namespace)
	return exported && v == workload.Service_PUBLIC && len(exportTo) > 0 && !slices.Contains(exportTo, "*")
}
