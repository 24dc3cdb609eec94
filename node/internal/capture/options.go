package capture

import (
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/objects"
)

// Options reads what a pod says about its capture. What it does not say is as in of.
func Options(p objects.Pod, of Pod) Pod {
	o := of
	if b, err := strconv.ParseBool(p.Annotations[mesh.AnnotationBypassInbound]); err == nil {
		o.BypassInbound = b // anything that is not a boolean leaves the pod captured
	}
	if b, err := strconv.ParseBool(p.Annotations[mesh.AnnotationDNSCapture]); err == nil {
		o.DNS = b
	}
	o.Virtual = interfaces(p.Annotations[mesh.AnnotationReroute])
	return o
}

// maxVirtual is more interfaces than a pod has use for.
const maxVirtual = 16

// interfaces keeps the names that an interface can have.
func interfaces(list string) string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if name != "" && len(name) <= 15 && len(names) < maxVirtual && !slices.Contains(names, name) &&
			!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' || r == '*' }) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
