package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/table"
)

// serviceRows describe a Service: each port with the ready addresses behind it.
func serviceRows(s *corev1.Service, endpointSlices []kinds.Object) [][]string {
	rows := [][]string{
		{"Selector:", table.Labels(s.Spec.Selector)}, {"Type:", string(s.Spec.Type)}, {"IP:", cmp.Or(s.Spec.ClusterIP, "<none>")},
	}
	for _, p := range s.Spec.Ports {
		rows = append(rows, []string{"Port:", fmt.Sprintf("%s  %d/%s", cmp.Or(p.Name, "<unset>"), p.Port, p.Protocol)})
		rows = append(rows, []string{"TargetPort:", p.TargetPort.String() + "/" + string(p.Protocol)})
		if p.NodePort != 0 {
			rows = append(rows, []string{"NodePort:", fmt.Sprintf("%d/%s", p.NodePort, p.Protocol)})
		}
		rows = append(rows, []string{"Endpoints:", readyAddresses(p.Name, endpointSlices)})
	}
	return append(rows, []string{"Session Affinity:", string(cmp.Or(s.Spec.SessionAffinity, corev1.ServiceAffinityNone))})
}

// readyAddresses are those of a port, three at the most and how many more, as kubectl shows them.
func readyAddresses(port string, endpointSlices []kinds.Object) string {
	var all []string
	for _, o := range endpointSlices {
		e, ok := o.(*discoveryv1.EndpointSlice)
		if !ok {
			continue
		}
		for _, p := range e.Ports {
			if p.Port == nil || p.Name != nil && *p.Name != port {
				continue
			}
			for _, at := range e.Endpoints {
				if at.Conditions.Ready != nil && !*at.Conditions.Ready {
					continue
				}
				for _, a := range at.Addresses {
					all = append(all, fmt.Sprintf("%s:%d", a, *p.Port))
				}
			}
		}
	}
	slices.Sort(all)
	if len(all) > 3 {
		return strings.Join(all[:3], ",") + fmt.Sprintf(" + %d more...", len(all)-3)
	}
	return strings.Join(all, ",")
}
