// Package enroll decides which pods are in the mesh.
package enroll

import (
	"fmt"
	"slices"

	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/objects"
)

// Verdict says whether a pod is in the mesh, and why.
type Verdict struct {
	In  bool
	Why string
}

// Rules say who is in the mesh. The zero value is Istio's: those whose pod or namespace says ambient.
type Rules struct {
	// Selectors take the place of the label istio.io/dataplane-mode; nil for that label. A pod that one of them chooses
	// is in the mesh.
	Selectors []Selector
	// Excluded namespaces are never in the mesh.
	Excluded []string
}

// Decide judges a pod by its own words and its namespace's.
func (r Rules) Decide(p objects.Pod, ns objects.Namespace) Verdict {
	mode, nsMode := p.Labels[mesh.LabelDataplaneMode], ns.Labels[mesh.LabelDataplaneMode]
	_, sidecar := p.Annotations[mesh.AnnotationSidecarStatus]
	switch {
	case slices.Contains(r.Excluded, p.Namespace):
		return Verdict{Why: "namespace " + p.Namespace + " is excluded"}
	case p.HostNetwork:
		return Verdict{Why: "pod uses the node's network"}
	case sidecar:
		return Verdict{Why: "pod has a sidecar"}
	case p.Finished():
		return Verdict{Why: "pod has ended: " + p.Phase}
	case r.Selectors != nil:
		return r.selected(p, ns)
	case mode == mesh.DataplaneModeNone:
		return Verdict{Why: "pod label " + mesh.LabelDataplaneMode + "=none"}
	case mode == mesh.DataplaneModeAmbient:
		return Verdict{In: true, Why: "pod label " + mesh.LabelDataplaneMode + "=ambient"}
	case nsMode == mesh.DataplaneModeAmbient:
		return Verdict{In: true, Why: "namespace label " + mesh.LabelDataplaneMode + "=ambient"}
	}
	return Verdict{Why: "no label " + mesh.LabelDataplaneMode + "=ambient on pod or namespace"}
}

func (r Rules) selected(p objects.Pod, ns objects.Namespace) Verdict {
	for i, s := range r.Selectors {
		if s.Pod.choose(p.Labels) && s.Namespace.choose(ns.Labels) {
			return Verdict{In: true, Why: fmt.Sprintf("enablement selector %d chooses the pod", i+1)}
		}
	}
	return Verdict{Why: "no enablement selector chooses the pod"}
}
