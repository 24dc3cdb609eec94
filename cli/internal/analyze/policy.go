package analyze

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	securityv1beta1 "istio.io/api/security/v1beta1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

func policies(a *analysis) {
	for _, l := range a.all {
		selector, targets, ok := selectorOf(l.Object)
		if !ok || targets {
			continue
		}
		a.selects(l, selector)
	}
	each(a, func(l kinds.Located, p *securityv1.AuthorizationPolicy) {
		a.sources(l, p)
		if p.Spec.TargetRef == nil && len(p.Spec.TargetRefs) == 0 {
			a.layer7(l, p)
			a.policyPorts(l, p)
		}
	})
	each(a, func(l kinds.Located, p *securityv1.RequestAuthentication) {
		if p.Spec.TargetRef == nil && len(p.Spec.TargetRefs) == 0 {
			a.idle(l, "RequestAuthentication is for waypoints and gateways; ztunnel reads no HTTP", "attach it to a waypoint or gateway with targetRefs")
		}
	})
	each(a, func(l kinds.Located, p *securityv1.PeerAuthentication) {
		if p.Spec.GetMtls().GetMode() == securityv1beta1.PeerAuthentication_MutualTLS_DISABLE {
			a.idle(l, "mode DISABLE cannot be had in an ambient mesh, where it means PERMISSIVE", "label what must stay out of the mesh "+mesh.LabelDataplaneMode+"=none, or write PERMISSIVE")
		}
	})
	each(a, func(l kinds.Located, s *networkingv1.Sidecar) {
		if a.ambient(s.Namespace) {
			a.idle(l, "Sidecar has no effect on pods in ambient mode", "remove it")
		}
	})
	each(a, func(l kinds.Located, _ *networkingv1alpha3.EnvoyFilter) {
		a.idle(l, "there is no Envoy in this mesh", "remove it")
	})
}

func (a *analysis) idle(l kinds.Located, why, hint string) {
	a.add(l, finding{Warning, "IST0167", "spec", "The policy has no impact: " + why + ".", hint})
}

// selects wants pods behind a selector, and no gateway behind it that should be named as a target.
func (a *analysis) selects(l kinds.Located, selector map[string]string) {
	if len(selector) == 0 {
		return
	}
	pods := a.policyPods(selector, l.Object.GetNamespace())
	if len(pods) == 0 {
		if a.live || slices.ContainsFunc(a.pods, func(p pod) bool { return p.namespace == l.Object.GetNamespace() }) || len(a.pods) > 0 && l.Object.GetNamespace() == mesh.SystemNamespace {
			a.add(l, finding{
				Warning, "IST0127", "spec.selector.matchLabels", "No matching workloads for this resource with the following labels: " + text(selector),
				"select labels of pods in the policy's own namespace" + a.nearLabels(selector, l.Object.GetNamespace()),
			})
		}
		return
	}
	for _, p := range pods {
		if name := p.labels[mesh.LabelGatewayName]; name != "" {
			a.add(l, finding{
				Warning, "IST0166", "spec.selector", fmt.Sprintf("Ineffective selector on Kubernetes Gateway %s/%s. Use the TargetRef field instead.", p.namespace, name),
				fmt.Sprintf("targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: %s}]", name),
			})
			return
		}
	}
}

// nearLabels suggests values that pods of a namespace have for the labels of a selector.
func (a *analysis) nearLabels(selector map[string]string, namespace string) string {
	for k, v := range selector {
		var have []string
		for _, p := range a.pods {
			if p.namespace == namespace && p.labels[k] != "" {
				have = append(have, p.labels[k])
			}
		}
		slices.Sort(have)
		if near, ok := kinds.Nearest(v, slices.Compact(have)); ok && near != v {
			return fmt.Sprintf("; did you mean %s=%s?", k, near)
		}
	}
	return ""
}

// eachSource calls f with every source of a policy's rules and its path.
func eachSource(p *securityv1.AuthorizationPolicy, f func(path string, s *securityv1beta1.Source)) {
	for i, r := range p.Spec.GetRules() {
		for j, from := range r.GetFrom() {
			f(fmt.Sprintf("spec.rules[%d].from[%d].source", i, j), from.GetSource())
		}
	}
}

// sources wants the namespaces, accounts and trust domains that rules name to be there.
func (a *analysis) sources(l kinds.Located, p *securityv1.AuthorizationPolicy) {
	eachSource(p, func(path string, s *securityv1beta1.Source) {
		for field, values := range map[string][]string{"namespaces": s.GetNamespaces(), "notNamespaces": s.GetNotNamespaces()} {
			for i, ns := range values {
				if a.live && !strings.Contains(ns, "*") && a.namespaces[ns] == nil {
					a.add(l, finding{Error, "IST0101", fmt.Sprintf("%s.%s[%d]", path, field, i), fmt.Sprintf("Referenced namespace not found: %q", ns), a.nearNamespace(ns)})
				}
			}
		}
		for field, values := range map[string][]string{"principals": s.GetPrincipals(), "notPrincipals": s.GetNotPrincipals()} {
			for i, v := range values {
				a.principal(l, fmt.Sprintf("%s.%s[%d]", path, field, i), v)
			}
		}
		for field, values := range map[string][]string{"serviceAccounts": s.GetServiceAccounts(), "notServiceAccounts": s.GetNotServiceAccounts()} {
			for i, v := range values {
				ns, name, ok := strings.Cut(v, "/")
				if !ok {
					ns, name = p.Namespace, v
				}
				a.account(l, fmt.Sprintf("%s.%s[%d]", path, field, i), ns, name)
			}
		}
	})
}

func (a *analysis) nearNamespace(ns string) string {
	if near, ok := kinds.Nearest(ns, slices.Sorted(maps.Keys(a.namespaces))); ok {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return "no client of that namespace can exist"
}

// principal judges TRUSTDOMAIN/ns/NAMESPACE/sa/ACCOUNT. Patterns are left alone.
func (a *analysis) principal(l kinds.Located, path, v string) {
	if bare, ok := strings.CutPrefix(v, "spiffe://"); ok {
		a.add(l, finding{Warning, "AMB0003", path, fmt.Sprintf("The principal %q matches nobody: principals are written without spiffe://.", v), "write " + bare})
		return
	}
	if strings.Contains(v, "*") {
		return
	}
	parts := strings.Split(v, "/")
	if len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		a.add(l, finding{Warning, "AMB0003", path, fmt.Sprintf("The principal %q matches nobody: no identity of the mesh has that form.", v), "write " + a.domain + "/ns/NAMESPACE/sa/ACCOUNT"})
		return
	}
	if parts[0] != a.domain && slices.Contains(a.unseen, "ConfigMap") {
		return // nobody may say which it is
	}
	if parts[0] != a.domain {
		a.add(l, finding{
			Warning, "AMB0003", path, fmt.Sprintf("The principal %q is of the trust domain %s, and this mesh is %s: a peer of another trust domain is refused before policies are asked.", v, parts[0], a.domain),
			fmt.Sprintf("write %s/ns/%s/sa/%s", a.domain, parts[2], parts[4]),
		})
		return
	}
	a.account(l, path, parts[2], parts[4])
}

// account wants a service account to exist, where its namespace can be judged.
func (a *analysis) account(l kinds.Located, path, ns, name string) {
	if strings.ContainsAny(ns+name, "*") || !a.live || slices.Contains(a.unseen, "ServiceAccount") || a.accounts[ns+"/"+name] || name == "default" && a.namespaces[ns] != nil {
		return
	}
	var known []string
	for key := range a.accounts {
		if in, account, _ := strings.Cut(key, "/"); in == ns {
			known = append(known, account)
		}
	}
	slices.Sort(known)
	hint := fmt.Sprintf("no client has that identity; namespace %s has: %s", ns, strings.Join(known, ", "))
	if near, ok := kinds.Nearest(name, known); ok {
		hint = fmt.Sprintf("did you mean %s?", near)
	} else if a.namespaces[ns] == nil {
		hint = a.nearNamespace(ns)
	}
	a.add(l, finding{Error, "IST0101", path, fmt.Sprintf("Referenced serviceaccount not found: %q", ns+"/"+name), hint})
}

// layer7 tells what becomes of rules that ztunnel cannot see, where no waypoint enforces them.
func (a *analysis) layer7(l kinds.Located, p *securityv1.AuthorizationPolicy) {
	if a.gatewayOnly(p) {
		return
	}
	deny := p.Spec.GetAction() == securityv1beta1.AuthorizationPolicy_DENY
	if act := p.Spec.GetAction(); act != securityv1beta1.AuthorizationPolicy_ALLOW && !deny {
		a.idle(l, fmt.Sprintf("ztunnel does not know the action %s", act), "attach the policy to a waypoint with targetRefs")
		return
	}
	for i, r := range p.Spec.GetRules() {
		http, l4 := attributes(r)
		if len(http) == 0 {
			continue
		}
		text := fmt.Sprintf("This ALLOW rule has HTTP attributes (%s), which ztunnel cannot see, so it allows nothing: what it should admit is denied.", strings.Join(http, ", "))
		switch {
		case deny && l4:
			text = fmt.Sprintf("This DENY rule has HTTP attributes (%s), which ztunnel cannot see, so it denies every request that the rest of the rule matches.", strings.Join(http, ", "))
		case deny:
			text = fmt.Sprintf("This DENY rule has nothing but HTTP attributes (%s), which ztunnel cannot see, so it denies nothing.", strings.Join(http, ", "))
		}
		a.add(l, finding{Error, "AMB0001", fmt.Sprintf("spec.rules[%d]", i), text, "give the service a waypoint and attach the policy to it with targetRefs, or write the rule with identities, addresses and ports alone"})
	}
}

// gatewayOnly tells whether a policy selects nothing but pods of gateways, which do see HTTP.
func (a *analysis) gatewayOnly(p *securityv1.AuthorizationPolicy) bool {
	selector := p.Spec.GetSelector().GetMatchLabels()
	if len(selector) == 0 {
		return false
	}
	if selector["istio"] == "ingressgateway" {
		return true
	}
	pods := a.policyPods(selector, p.Namespace)
	return len(pods) > 0 && !slices.ContainsFunc(pods, func(p pod) bool {
		return p.labels["istio"] != "ingressgateway" && p.labels[mesh.LabelGatewayName] == ""
	})
}

// attributes are those of a rule that only HTTP has, and whether it has others.
func attributes(r *securityv1beta1.Rule) (http []string, l4 bool) {
	seen := []string{
		"ports", "notPorts", "ipBlocks", "notIpBlocks", "namespaces", "notNamespaces", "serviceAccounts", "notServiceAccounts", "principals", "notPrincipals",
	}
	look := func(m protoreflect.Message) {
		if !m.IsValid() {
			return
		}
		m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			if slices.Contains(seen, f.JSONName()) {
				l4 = true
			} else {
				http = append(http, f.JSONName())
			}
			return true
		})
	}
	for _, f := range r.GetFrom() {
		look(f.GetSource().ProtoReflect())
	}
	for _, t := range r.GetTo() {
		look(t.GetOperation().ProtoReflect())
	}
	for _, w := range r.GetWhen() {
		if slices.Contains([]string{"source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port"}, w.GetKey()) {
			l4 = true
		} else {
			http = append(http, w.GetKey())
		}
	}
	slices.Sort(http)
	return slices.Compact(http), l4
}

// policyPorts finds ports of services in rules: policies are about the ports of pods.
func (a *analysis) policyPorts(l kinds.Located, p *securityv1.AuthorizationPolicy) {
	pods := a.policyPods(p.Spec.GetSelector().GetMatchLabels(), p.Namespace)
	for i, r := range p.Spec.GetRules() {
		for j, to := range r.GetTo() {
			for k, port := range to.GetOperation().GetPorts() {
				if target := a.meant(port, pods); target != "" {
					a.add(l, finding{
						Warning, "AMB0007", fmt.Sprintf("spec.rules[%d].to[%d].operation.ports[%d]", i, j, k),
						fmt.Sprintf("Port %s is a service's; the pods behind it listen on %s, and policies are about ports of pods.", port, target), "write " + target,
					})
				}
			}
		}
	}
}

// meant is the pod's port behind a service's port of that number, if no service leads to the number itself.
func (a *analysis) meant(port string, pods []pod) string {
	meant := ""
	for _, p := range pods {
		for _, c := range p.spec.Containers {
			for _, open := range c.Ports {
				if strconv.Itoa(int(open.ContainerPort)) == port {
					return ""
				}
			}
		}
		for _, s := range a.behind(p) {
			for _, sp := range s.Spec.Ports {
				target := sp.TargetPort.IntValue()
				switch {
				case target == 0 && sp.TargetPort.StrVal == "" || strconv.Itoa(target) == port:
					if strconv.Itoa(int(sp.Port)) == port || strconv.Itoa(target) == port {
						return ""
					}
				case strconv.Itoa(int(sp.Port)) == port:
					meant = sp.TargetPort.String()
				}
			}
		}
	}
	return meant
}
