// Package enroll decides which pods are in the mesh.
package enroll

import (
	"slices"
	"strconv"

	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/podwatch"
)

// Verdict says whether a pod is in the mesh, and why.
type Verdict struct {
	In  bool
	Why string
}

// Decide judges a pod by its own words and its namespace's. Pods in excluded namespaces are never in the mesh.
func Decide(p podwatch.Pod, ns podwatch.Namespace, excluded []string) Verdict {
	mode, nsMode := p.Labels[mesh.LabelDataplaneMode], ns.Labels[mesh.LabelDataplaneMode]
	_, sidecar := p.Annotations[mesh.AnnotationSidecarStatus]
	switch {
	case slices.Contains(excluded, p.Namespace):
		return Verdict{Why: "namespace " + p.Namespace + " is excluded"}
	case p.HostNetwork:
		return Verdict{Why: "pod uses the node's network"}
	case sidecar:
		return Verdict{Why: "pod has a sidecar"}
	case p.Finished():
		return Verdict{Why: "pod has ended: " + p.Phase}
	case mode == mesh.DataplaneModeNone:
		return Verdict{Why: "pod label " + mesh.LabelDataplaneMode + "=none"}
	case mode == mesh.DataplaneModeAmbient:
		return Verdict{In: true, Why: "pod label " + mesh.LabelDataplaneMode + "=ambient"}
	case nsMode == mesh.DataplaneModeAmbient:
		return Verdict{In: true, Why: "namespace label " + mesh.LabelDataplaneMode + "=ambient"}
	}
	return Verdict{Why: "no label " + mesh.LabelDataplaneMode + "=ambient on pod or namespace"}
}

// Options reads what the pod says about its capture. Whether its DNS
// is captured is dns, unless the pod says otherwise.
func Options(p podwatch.Pod, dns, v6 bool) capture.Pod {
	o := capture.Pod{DNS: dns, V6: v6}
	if b, err := strconv.ParseBool(p.Annotations[mesh.AnnotationBypassInbound]); err == nil {
		o.BypassInbound = b // anything that is not a boolean leaves the pod captured
	}
	if b, err := strconv.ParseBool(p.Annotations[mesh.AnnotationDNSCapture]); err == nil {
		o.DNS = b
	}
	return o
}
