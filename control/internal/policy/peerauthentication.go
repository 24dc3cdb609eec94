package policy

import (
	"slices"

	securityv1beta1 "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/api/authorization"
)

// StrictName is the policy, in the root namespace, that workloads under mutual TLS refer to.
const StrictName = "istio_converted_static_strict"

const convertedPrefix = "converted_peer_authentication_"

type mode = securityv1beta1.PeerAuthentication_MutualTLS_Mode

const (
	unset      = securityv1beta1.PeerAuthentication_MutualTLS_UNSET
	strict     = securityv1beta1.PeerAuthentication_MutualTLS_STRICT
	permissive = securityv1beta1.PeerAuthentication_MutualTLS_PERMISSIVE
)

// Strict denies whoever proves no identity.
func Strict(root string) *authorization.Authorization {
	return &authorization.Authorization{
		Name: StrictName, Namespace: root, Scope: authorization.Scope_WORKLOAD_SELECTOR, Action: authorization.Action_DENY,
		Rules: []*authorization.Rule{{Clauses: []*authorization.Clause{anonymous()}}},
	}
}

func anonymous() *authorization.Clause {
	return &authorization.Clause{Matches: []*authorization.Match{{NotPrincipals: []*authorization.StringMatch{present()}}}}
}

// Parents finds the PeerAuthentications that hold where a workload's own says nothing: the namespace's and the mesh's.
// Of several, the oldest counts.
func Parents(all []*securityv1.PeerAuthentication, namespace, root string) (ns, meshWide *securityv1.PeerAuthentication) {
	for _, p := range all {
		if len(p.Spec.GetSelector().GetMatchLabels()) > 0 {
			continue
		}
		switch p.Namespace {
		case root:
			meshWide = older(meshWide, p)
		case namespace:
			ns = older(ns, p)
		}
	}
	return ns, meshWide
}

func older(a, b *securityv1.PeerAuthentication) *securityv1.PeerAuthentication {
	switch {
	case a == nil:
		return b
	case b.CreationTimestamp.Before(&a.CreationTimestamp):
		return b
	case a.CreationTimestamp.Before(&b.CreationTimestamp):
		return a
	case b.Name < a.Name: // the same second: any order will do as long as it is always the same
		return b
	}
	return a
}

func modeOf(p *securityv1.PeerAuthentication) mode {
	if p == nil {
		return unset
	}
	return norm(p.Spec.GetMtls().GetMode())
}

// norm: a node proxy cannot turn its TLS off, so DISABLE is what PERMISSIVE is.
func norm(m mode) mode {
	if m == securityv1beta1.PeerAuthentication_MutualTLS_DISABLE {
		return permissive
	}
	return m
}

// effective is the mode of what has no mode of its own, from the inside out.
func effective(own mode, ns, meshWide *securityv1.PeerAuthentication) mode {
	for _, m := range []mode{own, modeOf(ns), modeOf(meshWide)} {
		if m != unset {
			return m
		}
	}
	return permissive
}

// HasEffect reports whether anything of a policy counts: with a selector it does in its own namespace only.
func HasEffect(p *securityv1.PeerAuthentication, root string) bool {
	return len(p.Spec.GetSelector().GetMatchLabels()) == 0 || p.Namespace != root
}

// FromPeerAuthentication makes the policy of a workload's port-level exceptions, or says that none is needed.
func FromPeerAuthentication(p, ns, meshWide *securityv1.PeerAuthentication, root string) Result {
	selective := len(p.Spec.GetSelector().GetMatchLabels()) > 0
	switch {
	case !HasEffect(p, root):
		return Result{Reason: Unsupported, Why: "a PeerAuthentication with a selector has no effect in the root namespace " + root}
	case !selective && len(p.Spec.PortLevelMtls) > 0:
		return Result{Reason: Unsupported, Why: "portLevelMtls has no effect without a selector; the mode for all ports is in force"}
	}
	r := Result{Reason: Accepted, Why: "bound to ztunnel"}
	if !selective {
		return r
	}
	base := effective(modeOf(p), ns, meshWide)
	var strictPorts, openPorts []uint32
	for port, m := range p.Spec.PortLevelMtls {
		switch norm(m.GetMode()) {
		case strict:
			strictPorts = append(strictPorts, port)
		case permissive:
			openPorts = append(openPorts, port)
		}
	}
	slices.Sort(strictPorts)
	slices.Sort(openPorts)
	wire := &authorization.Authorization{
		Name: convertedPrefix + p.Name, Namespace: p.Namespace, Scope: authorization.Scope_WORKLOAD_SELECTOR, Action: authorization.Action_DENY,
	}
	switch {
	case base == strict && len(openPorts) > 0:
		// Deny the anonymous everywhere but on the open ports.
		wire.Rules = []*authorization.Rule{{Clauses: []*authorization.Clause{
			{Matches: []*authorization.Match{{NotDestinationPorts: openPorts}}}, anonymous(),
		}}}
	case base != strict && len(strictPorts) > 0:
		// Deny the anonymous on each strict port; one rule each, since any of them is reason enough.
		for _, port := range strictPorts {
			wire.Rules = append(wire.Rules, &authorization.Rule{Clauses: []*authorization.Clause{{Matches: []*authorization.Match{
				{NotPrincipals: []*authorization.StringMatch{present()}, DestinationPorts: []uint32{port}},
			}}}})
		}
	default:
		return r // the ports agree with the rest
	}
	r.Wire = wire
	return r
}

// ForWorkload names the converted policies that a workload refers to: those of its namespace, its labels and the mesh.
func ForWorkload(all []*securityv1.PeerAuthentication, namespace string, labels map[string]string, root string) []string {
	ns, meshWide := Parents(all, namespace, root)
	var own *securityv1.PeerAuthentication
	if namespace != root {
		for _, p := range all {
			if p.Namespace == namespace && selects(p.Spec.GetSelector().GetMatchLabels(), labels) {
				own = older(own, p)
			}
		}
	}
	if own != nil {
		if r := FromPeerAuthentication(own, ns, meshWide, root); r.Wire != nil {
			return []string{Key(r.Wire)} // it includes the strictness of the other ports
		}
	}
	if effective(modeOf(own), ns, meshWide) == strict {
		return []string{root + "/" + StrictName}
	}
	return nil
}

// ForLabels names the AuthorizationPolicies that select a workload by its labels.
func ForLabels(all []*securityv1.AuthorizationPolicy, namespace string, labels map[string]string, root string) []string {
	var out []string
	for _, p := range all {
		if p.Namespace != namespace && p.Namespace != root || !selects(p.Spec.GetSelector().GetMatchLabels(), labels) {
			continue
		}
		if r := FromAuthorizationPolicy(p, root); r.Wire != nil {
			out = append(out, Key(r.Wire))
		}
	}
	slices.Sort(out)
	return out
}

// selects reports whether labels have everything that a selector asks for, and that it asks for something.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return len(selector) > 0
}
