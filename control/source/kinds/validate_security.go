package kinds

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	securityv1beta1 "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
)

func (v *validator) authorizationPolicy(s *securityv1beta1.AuthorizationPolicy) {
	v.attachment(s.Selector, s.TargetRef, s.TargetRefs)
	switch s.Action {
	case securityv1beta1.AuthorizationPolicy_CUSTOM:
		if s.GetProvider().GetName() == "" {
			v.fail("spec.action", "name one in spec.provider.name", "CUSTOM has no provider")
		}
	case securityv1beta1.AuthorizationPolicy_DENY:
		if len(s.Rules) == 0 {
			v.fail("spec.action", "use `rules: [{}]` to deny everything", "a DENY policy without rules denies nothing")
		}
	}
	if s.Action != securityv1beta1.AuthorizationPolicy_CUSTOM && s.GetProvider() != nil {
		v.fail("spec.provider", "", "a provider is only for the CUSTOM action")
	}
	for i, r := range s.Rules {
		v.rule(sub("spec.rules", i), r)
	}
}

// attachment checks what a policy is for: a selector or targets, not both.
func (v *validator) attachment(sel *typev1beta1.WorkloadSelector, ref *typev1beta1.PolicyTargetReference, refs []*typev1beta1.PolicyTargetReference) {
	given := 0
	for _, is := range []bool{sel != nil, ref != nil, len(refs) > 0} {
		if is {
			given++
		}
	}
	if given > 1 {
		v.fail("spec", "keep one of them", "has more than one of selector, targetRef and targetRefs")
	}
	v.labels("spec.selector.matchLabels", sel.GetMatchLabels())
	if ref != nil {
		v.target("spec.targetRef", ref)
	}
	for i, r := range refs {
		v.target(sub("spec.targetRefs", i), r)
	}
	if len(refs) > 16 {
		v.fail("spec.targetRefs", "", "has %d entries, more than 16", len(refs))
	}
}

func (v *validator) target(path string, r *typev1beta1.PolicyTargetReference) {
	if r.GetName() == "" || r.GetKind() == "" {
		v.fail(path, "", "has no kind or no name")
	}
	if r.GetNamespace() != "" {
		v.fail(path+".namespace", "a policy stands in the namespace of what it is for", "cannot be set")
	}
	switch r.GetGroup() + "/" + r.GetKind() {
	case "/", "/Service", "core/Service", "gateway.networking.k8s.io/Gateway", "gateway.networking.k8s.io/GatewayClass", "networking.istio.io/ServiceEntry":
	default:
		v.fail(path, "use Gateway or GatewayClass of gateway.networking.k8s.io, Service, or ServiceEntry of networking.istio.io",
			"cannot be for the kind %s of group %q", r.GetKind(), r.GetGroup())
	}
}

func (v *validator) rule(path string, r *securityv1beta1.Rule) {
	for i, from := range r.GetFrom() {
		at := sub(path+".from", i)
		if from.GetSource() == nil || proto.Size(from.Source) == 0 {
			v.fail(at, "leave `from` out to mean everybody", "has an empty source")
			continue
		}
		v.source(at+".source", from.Source)
	}
	for i, to := range r.GetTo() {
		at := sub(path+".to", i)
		if to.GetOperation() == nil || proto.Size(to.Operation) == 0 {
			v.fail(at, "leave `to` out to mean every operation", "has an empty operation")
			continue
		}
		v.operation(at+".operation", to.Operation)
	}
	for i, when := range r.GetWhen() {
		v.condition(sub(path+".when", i), when)
	}
}

func (v *validator) source(path string, s *securityv1beta1.Source) {
	for name, values := range map[string][]string{
		"principals": s.Principals, "notPrincipals": s.NotPrincipals, "requestPrincipals": s.RequestPrincipals, "notRequestPrincipals": s.NotRequestPrincipals,
		"namespaces": s.Namespaces, "notNamespaces": s.NotNamespaces, "trustDomains": s.TrustDomains, "notTrustDomains": s.NotTrustDomains,
	} {
		v.filled(path+"."+name, values)
	}
	v.blocks(path+".ipBlocks", s.IpBlocks)
	v.blocks(path+".notIpBlocks", s.NotIpBlocks)
	v.blocks(path+".remoteIpBlocks", s.RemoteIpBlocks)
	v.blocks(path+".notRemoteIpBlocks", s.NotRemoteIpBlocks)
	v.accounts(path+".serviceAccounts", s.ServiceAccounts)
	v.accounts(path+".notServiceAccounts", s.NotServiceAccounts)
	if len(s.ServiceAccounts)+len(s.NotServiceAccounts) > 0 && len(s.Principals)+len(s.NotPrincipals)+len(s.Namespaces)+len(s.NotNamespaces) > 0 {
		v.fail(path, "use one of them", "has service accounts beside principals or namespaces")
	}
}

func (v *validator) accounts(path string, values []string) {
	for i, s := range values {
		ns, name, both := strings.Cut(s, "/")
		if s == "" || strings.ContainsAny(s, "* ") || both && (ns == "" || name == "" || strings.Contains(name, "/")) {
			v.fail(sub(path, i), "write namespace/name, or a name in the policy's namespace", "%q is not a service account", s)
		}
	}
}

func (v *validator) operation(path string, o *securityv1beta1.Operation) {
	for name, values := range map[string][]string{
		"hosts": o.Hosts, "notHosts": o.NotHosts, "methods": o.Methods, "notMethods": o.NotMethods, "paths": o.Paths, "notPaths": o.NotPaths,
	} {
		v.filled(path+"."+name, values)
	}
	v.ports(path+".ports", o.Ports)
	v.ports(path+".notPorts", o.NotPorts)
}

func (v *validator) condition(path string, w *securityv1beta1.Condition) {
	key := w.GetKey()
	if len(w.GetValues())+len(w.GetNotValues()) == 0 {
		v.fail(path, "", "has neither values nor notValues")
	}
	v.filled(path+".values", w.GetValues())
	v.filled(path+".notValues", w.GetNotValues())
	name, inner, bracketed := strings.Cut(key, "[")
	known := []string{
		"source.ip", "remote.ip", "source.namespace", "source.serviceAccount", "source.principal", "source.trustDomain", "request.auth.principal",
		"request.auth.audiences", "request.auth.presenter", "destination.ip", "destination.port", "connection.sni",
	}
	switch {
	case name == "request.headers", name == "request.auth.claims", strings.HasPrefix(name, "experimental.envoy.filters."):
		if !bracketed || !strings.HasSuffix(inner, "]") || inner == "]" {
			v.fail(path+".key", fmt.Sprintf("write %s[name]", name), "%q names nothing in brackets", key)
		}
	case key == "source.ip", key == "remote.ip", key == "destination.ip":
		v.blocks(path+".values", w.Values)
		v.blocks(path+".notValues", w.NotValues)
	case key == "destination.port":
		v.ports(path+".values", w.Values)
		v.ports(path+".notValues", w.NotValues)
	case key == "source.serviceAccount":
		v.accounts(path+".values", w.Values)
		v.accounts(path+".notValues", w.NotValues)
	case slices.Contains(known, key):
	default:
		hint := "known: " + strings.Join(append(known, "request.headers[…]", "request.auth.claims[…]"), ", ")
		if near, ok := nearest(key, known); ok && key != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		v.fail(path+".key", hint, "unknown key %q", key)
	}
}

func (v *validator) peerAuthentication(s *securityv1beta1.PeerAuthentication) {
	v.labels("spec.selector.matchLabels", s.Selector.GetMatchLabels())
	if len(s.PortLevelMtls) > 0 && len(s.Selector.GetMatchLabels()) == 0 {
		v.fail("spec.portLevelMtls", "add spec.selector.matchLabels", "modes of single ports need a selector")
	}
	for port := range s.PortLevelMtls {
		v.port(fmt.Sprintf("spec.portLevelMtls.%d", port), port)
	}
}

func (v *validator) requestAuthentication(s *securityv1beta1.RequestAuthentication) {
	v.attachment(s.Selector, s.TargetRef, s.TargetRefs)
	for i, r := range s.JwtRules {
		path := sub("spec.jwtRules", i)
		if r.GetIssuer() == "" {
			v.fail(path, "", "has no issuer")
		}
		v.filled(path+".audiences", r.GetAudiences())
		if r.GetJwks() != "" && r.GetJwksUri() != "" {
			v.fail(path, "keep one of them", "has both jwks and jwksUri")
		}
		if uri := r.GetJwksUri(); uri != "" {
			if u, err := url.Parse(uri); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				v.fail(path+".jwksUri", "write an http or https URL", "%q is not the URL of a key set", uri)
			}
		}
		for j, h := range r.GetFromHeaders() {
			if h.GetName() == "" {
				v.fail(sub(path+".fromHeaders", j), "", "has no name")
			}
		}
		v.filled(path+".fromParams", r.GetFromParams())
		v.filled(path+".fromCookies", r.GetFromCookies())
	}
}
