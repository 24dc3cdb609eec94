package capture

import (
	"strconv"

	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/objects"
)

// Options reads what a pod says about its capture. Whether its DNS is captured is dns, unless the pod says otherwise.
func Options(p objects.Pod, dns, v6 bool) Pod {
	o := Pod{DNS: dns, V6: v6}
	if b, err := strconv.ParseBool(p.Annotations[mesh.AnnotationBypassInbound]); err == nil {
		o.BypassInbound = b // anything that is not a boolean leaves the pod captured
	}
	if b, err := strconv.ParseBool(p.Annotations[mesh.AnnotationDNSCapture]); err == nil {
		o.DNS = b
	}
	return o
}
