package analyze

import (
	"fmt"
	"slices"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func virtualServices(a *analysis) {
	each(a, func(l kinds.Located, v *networkingv1.VirtualService) {
		a.boundTo(l, v)
		a.leadsTo(l, v)
		a.unreached(l, v)
	})
	a.sameHosts()
}

// inMesh tells whether a VirtualService is for callers inside the mesh.
func inMesh(v *networkingv1.VirtualService) bool {
	return len(v.Spec.GetGateways()) == 0 && len(v.Spec.GetHosts()) > 0 || slices.Contains(v.Spec.GetGateways(), "mesh")
}

// boundTo wants its gateways to be there and to take its hosts.
func (a *analysis) boundTo(l kinds.Located, v *networkingv1.VirtualService) {
	for i, name := range v.Spec.GetGateways() {
		if name == "mesh" {
			continue
		}
		key := name
		if !strings.Contains(name, "/") {
			key = v.Namespace + "/" + name
		}
		g := a.gateways[key]
		if g == nil {
			hint := "create it, or name one that is there, as NAMESPACE/NAME if it is of another namespace"
			var known []string
			for k := range a.gateways {
				known = append(known, strings.TrimPrefix(k, v.Namespace+"/"))
			}
			slices.Sort(known)
			if near, ok := kinds.Nearest(name, known); ok {
				hint = fmt.Sprintf("did you mean %s?", near)
			} else if len(known) > 0 && len(known) <= 5 {
				hint = "there are: " + strings.Join(known, ", ")
			}
			a.add(l, finding{Error, "IST0101", fmt.Sprintf("spec.gateways[%d]", i), fmt.Sprintf("Referenced gateway not found: %q", name), hint})
			continue
		}
		for j, h := range v.Spec.GetHosts() {
			if !admits(g, v.Namespace, h) {
				a.add(l, finding{
					Warning, "IST0132", fmt.Sprintf("spec.hosts[%d]", j),
					fmt.Sprintf("one or more host [%s] defined in VirtualService %s/%s not found in Gateway %s.", h, v.Namespace, v.Name, key),
					"add the host to a server of the Gateway, or bind to another",
				})
			}
		}
	}
}

// target is a destination and where it stands.
type target struct {
	path string
	to   *networkingv1alpha3.Destination
}

func targetsOf(v *networkingv1.VirtualService) []target {
	var all []target
	add := func(to *networkingv1alpha3.Destination, format string, args ...any) {
		if to != nil {
			all = append(all, target{fmt.Sprintf(format, args...), to})
		}
	}
	for i, r := range v.Spec.GetHttp() {
		for j, d := range r.GetRoute() {
			add(d.GetDestination(), "spec.http[%d].route[%d].destination", i, j)
		}
		add(r.GetMirror(), "spec.http[%d].mirror", i)
		for j, m := range r.GetMirrors() {
			add(m.GetDestination(), "spec.http[%d].mirrors[%d].destination", i, j)
		}
	}
	for i, r := range v.Spec.GetTls() {
		for j, d := range r.GetRoute() {
			add(d.GetDestination(), "spec.tls[%d].route[%d].destination", i, j)
		}
	}
	for i, r := range v.Spec.GetTcp() {
		for j, d := range r.GetRoute() {
			add(d.GetDestination(), "spec.tcp[%d].route[%d].destination", i, j)
		}
	}
	return all
}

// leadsTo wants its destinations to be there, with the subset and the port that it names.
func (a *analysis) leadsTo(l kinds.Located, v *networkingv1.VirtualService) {
	for _, t := range targetsOf(v) {
		host := t.to.GetHost()
		service, entry := a.host(host, v.Namespace)
		if service == nil && entry == nil {
			if strings.Contains(host, "*") {
				continue
			}
			a.add(l, finding{
				Error, "IST0101", t.path + ".host", fmt.Sprintf("Referenced host not found: %q", host),
				"name a Service, as NAME.NAMESPACE.svc.cluster.local if it is of another namespace, or a ServiceEntry's host" + a.near(host, v.Namespace),
			})
			continue
		}
		if s := t.to.GetSubset(); s != "" && !slices.Contains(a.rules[fqdn(host, v.Namespace)], s) {
			hint := fmt.Sprintf("add a DestinationRule for %s with the subset %s", host, s)
			if near, ok := kinds.Nearest(s, a.rules[fqdn(host, v.Namespace)]); ok {
				hint = fmt.Sprintf("did you mean subset %s?", near)
			}
			a.add(l, finding{Error, "IST0101", t.path + ".subset", fmt.Sprintf("Referenced host+subset in destinationrule not found: %q", host+"+"+s), hint})
		}
		if service == nil {
			continue
		}
		var open []int32
		for _, p := range service.Spec.Ports {
			open = append(open, p.Port)
		}
		switch port := int32(t.to.GetPort().GetNumber()); {
		case port == 0 && len(open) > 1:
			a.add(l, finding{
				Error, "IST0112", t.path, fmt.Sprintf("This VirtualService routes to a service %q that exposes multiple ports %v. Specifying a port in the destination is required to disambiguate.", host, open),
				"add port: {number: …} to the destination",
			})
		case port != 0 && !slices.Contains(open, port):
			a.add(l, finding{
				Error, "IST0101", t.path + ".port.number", fmt.Sprintf("Referenced host:port not found: %q", fmt.Sprintf("%s:%d", host, port)),
				fmt.Sprintf("the service has %v", open),
			})
		}
	}
}

// sameHosts finds VirtualServices for callers of the mesh that rule one host.
func (a *analysis) sameHosts() {
	byHost := map[string][]kinds.Located{}
	each(a, func(l kinds.Located, v *networkingv1.VirtualService) {
		if !inMesh(v) {
			return
		}
		for _, h := range v.Spec.GetHosts() {
			byHost[fqdn(h, v.Namespace)] = append(byHost[fqdn(h, v.Namespace)], l)
		}
	})
	for host, all := range byHost {
		for _, l := range all {
			v := l.Object.(*networkingv1.VirtualService)
			var names []string
			for _, o := range all {
				if other := o.Object.(*networkingv1.VirtualService); other == v || meets(v, other) {
					names = append(names, keyOf(o.Object))
				}
			}
			if len(names) > 1 {
				a.add(l, finding{
					Error, "IST0109", "spec.hosts", fmt.Sprintf("The VirtualServices %s associated with mesh gateway define the same host %s which can lead to undefined behavior. "+
						"This can be fixed by merging the conflicting VirtualServices into a single resource.", strings.Join(names, ","), host), "",
				})
			}
		}
	}
}

// meets tells whether a caller may see both.
func meets(a, b *networkingv1.VirtualService) bool {
	seen := func(v, from *networkingv1.VirtualService) bool {
		to := v.Spec.GetExportTo()
		return len(to) == 0 || slices.Contains(to, "*") || slices.Contains(to, from.Namespace) || slices.Contains(to, ".") && v.Namespace == from.Namespace
	}
	return a.Namespace == b.Namespace || seen(a, b) || seen(b, a)
}

// unreached finds rules that an earlier one leaves nothing for.
func (a *analysis) unreached(l kinds.Located, v *networkingv1.VirtualService) {
	routes := v.Spec.GetHttp()
	for i, r := range routes {
		name := fmt.Sprintf("#%d", i)
		if r.GetName() != "" {
			name = fmt.Sprintf("%q", r.GetName())
		}
		own := r.GetMatch()
		if len(own) == 0 {
			own = []*networkingv1alpha3.HTTPMatchRequest{{}}
		}
		taken := map[int]int{} // match → the rule that takes it
		for m, match := range own {
			for before := range i {
				if coveredBy(match, routes[before].GetMatch()) {
					taken[m] = before
					break
				}
			}
		}
		path := fmt.Sprintf("spec.http[%d]", i)
		if len(taken) == len(own) {
			why := "all matches used by prior rules"
			if len(r.GetMatch()) == 0 {
				why = "only the last rule can have no matches"
			}
			a.add(l, finding{Warning, "IST0130", path, fmt.Sprintf("VirtualService rule %s not used (%s).", name, why), fmt.Sprintf("rule #%d before it takes all its requests: put the narrower rule first", taken[0])})
			continue
		}
		for m := range own {
			if by, ok := taken[m]; ok {
				a.add(l, finding{
					Info, "IST0131", fmt.Sprintf("%s.match[%d]", path, m), fmt.Sprintf("VirtualService rule %s match #%d is not used (duplicate/overlapping match in rule #%d).", name, m, by),
					"remove it, or put the rule before",
				})
			}
		}
	}
}
