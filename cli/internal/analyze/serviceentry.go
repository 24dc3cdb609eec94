package analyze

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// serviceEntries finds entries that give one host and port several protocols.
func serviceEntries(a *analysis) {
	type door struct {
		host string
		port uint32
	}
	type claim struct {
		located  kinds.Located
		path     string
		protocol string
	}
	claims := map[door][]claim{}
	each(a, func(l kinds.Located, e *networkingv1.ServiceEntry) {
		for _, h := range e.Spec.GetHosts() {
			for i, p := range e.Spec.GetPorts() {
				d := door{h, p.GetNumber()}
				claims[d] = append(claims[d], claim{l, fmt.Sprintf("spec.ports[%d].protocol", i), strings.ToUpper(p.GetProtocol())})
			}
		}
	})
	for d, all := range claims {
		protocols, entries := map[string]bool{}, map[string]bool{}
		for _, c := range all {
			protocols[c.protocol] = true
			entries[keyOf(c.located.Object)] = true
		}
		if len(protocols) < 2 {
			continue
		}
		for _, c := range all {
			a.add(c.located, finding{
				Warning, "IST0177", c.path, fmt.Sprintf("Multiple ServiceEntries (%s) define the same host %q and port %d with conflicting protocols (%s).",
					strings.Join(slices.Sorted(maps.Keys(entries)), ","), d.host, d.port, strings.Join(slices.Sorted(maps.Keys(protocols)), ",")),
				"give the port one protocol, in one ServiceEntry",
			})
		}
	}
}
