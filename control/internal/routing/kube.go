package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/collection"
)

// class is the GatewayClass that ingress gateways serve, and ingress the Service whose pods serve a Gateway that names no
// address of its own.
const (
	class   = "istio"
	ingress = "istio-ingressgateway"
)

// Verdict is one condition of an object of the Gateway API.
type Verdict struct {
	Type            string
	True            bool
	Reason, Message string
}

func yes(kind string) Verdict { return Verdict{Type: kind, True: true, Reason: kind} }

func no(kind, reason, format string, args ...any) Verdict {
	return Verdict{Type: kind, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Served reports whether a Gateway of Kubernetes is one of ingress gateways.
func Served(g *gatewayv1.Gateway) bool { return g.Spec.GatewayClassName == class }

// serviceOf names the Service, "namespace/name", whose pods serve a Gateway: the one that its address names, else the
// ingress gateway's.
func (b *builder) serviceOf(g *gatewayv1.Gateway) string {
	for _, a := range g.Spec.Addresses {
		if a.Type != nil && *a.Type == gatewayv1.HostnameAddressType {
			p := strings.Split(a.Value, ".")
			if len(p) > 1 {
				return p[1] + "/" + p[0]
			}
			return g.Namespace + "/" + p[0]
		}
	}
	return b.RootNamespace + "/" + ingress
}

// kubeListener is one listener of a Gateway, and what is to be said of it.
type kubeListener struct {
	gateway  *gatewayv1.Gateway
	spec     *gatewayv1.Listener
	protocol l7.Protocol
	kinds    []string // of routes that it takes
	secrets  []SecretRef
	verdicts []Verdict // Accepted, ResolvedRefs, Programmed, Conflicted
	open     bool
}

func (k *kubeListener) host() string {
	if k.spec.Hostname == nil || *k.spec.Hostname == "" {
		return "*"
	}
	return strings.ToLower(string(*k.spec.Hostname))
}

// kubeListeners judges the listeners of a Gateway. Of two that would take the same connections the first one wins.
func (b *builder) kubeListeners(r *collection.Read, g *gatewayv1.Gateway) []*kubeListener {
	var out []*kubeListener
	for i := range g.Spec.Listeners {
		k := &kubeListener{gateway: g, spec: &g.Spec.Listeners[i]}
		accepted, resolved := yes("Accepted"), yes("ResolvedRefs")
		conflict := Verdict{Type: "Conflicted", Reason: string(gatewayv1.ListenerReasonNoConflicts)}
		k.open = true
		refuse := func(v Verdict) { accepted, k.open = v, false }
		if !k.understand() {
			refuse(no("Accepted", string(gatewayv1.ListenerReasonUnsupportedProtocol), "protocol %s is not served", k.spec.Protocol))
		}
		for _, o := range out {
			if !o.open || o.spec.Port != k.spec.Port {
				continue
			}
			reason := ""
			switch {
			case o.protocol != k.protocol && !(secure(o.protocol) && secure(k.protocol)):
				reason = string(gatewayv1.ListenerReasonProtocolConflict)
			case o.host() == k.host(), k.protocol == l7.Protocol_TCP:
				reason = string(gatewayv1.ListenerReasonHostnameConflict)
			}
			if reason != "" {
				conflict = Verdict{Type: "Conflicted", True: true, Reason: reason, Message: "listener " + string(o.spec.Name) + " comes before it"}
				refuse(no("Accepted", reason, "listener %s has its port already", o.spec.Name))
			}
		}
		if v, ok := k.allowKinds(); !ok {
			resolved = v
		}
		if k.protocol == l7.Protocol_HTTPS || k.protocol == l7.Protocol_TLS_TERMINATE {
			if v, ok := b.certificates(r, k); !ok {
				resolved, k.open = v, false
			}
		}
		programmed := yes("Programmed")
		if !k.open {
			programmed = no("Programmed", string(gatewayv1.ListenerReasonInvalid), "see the other conditions")
		}
		k.verdicts = []Verdict{accepted, resolved, programmed, conflict}
		out = append(out, k)
	}
	return out
}

// understand reads the protocol.
func (k *kubeListener) understand() bool {
	passthrough := k.spec.TLS != nil && k.spec.TLS.Mode != nil && *k.spec.TLS.Mode == gatewayv1.TLSModePassthrough
	switch k.spec.Protocol {
	case gatewayv1.HTTPProtocolType:
		k.protocol, k.kinds = l7.Protocol_HTTP, []string{"HTTPRoute", "GRPCRoute"}
	case gatewayv1.HTTPSProtocolType:
		k.protocol, k.kinds = l7.Protocol_HTTPS, []string{"HTTPRoute", "GRPCRoute"}
		return !passthrough
	case gatewayv1.TLSProtocolType:
		k.protocol, k.kinds = l7.Protocol_TLS_TERMINATE, []string{"TLSRoute", "TCPRoute"}
		if passthrough {
			k.protocol, k.kinds = l7.Protocol_TLS_PASSTHROUGH, []string{"TLSRoute"}
		}
	case gatewayv1.TCPProtocolType:
		k.protocol, k.kinds = l7.Protocol_TCP, []string{"TCPRoute"}
	default:
		return false
	}
	return true
}

// allowKinds leaves of the kinds those that the listener admits.
func (k *kubeListener) allowKinds() (Verdict, bool) {
	if k.spec.AllowedRoutes == nil || len(k.spec.AllowedRoutes.Kinds) == 0 {
		return Verdict{}, true
	}
	var kept []string
	verdict, ok := Verdict{}, true
	for _, want := range k.spec.AllowedRoutes.Kinds {
		group := gatewayv1.GroupName
		if want.Group != nil {
			group = string(*want.Group)
		}
		if group == gatewayv1.GroupName && slices.Contains(k.kinds, string(want.Kind)) {
			kept = append(kept, string(want.Kind))
		} else {
			verdict, ok = no("ResolvedRefs", string(gatewayv1.ListenerReasonInvalidRouteKinds), "a listener of %s takes no %s", k.spec.Protocol, want.Kind), false
		}
	}
	k.kinds = kept
	return verdict, ok
}

// certificates finds what a listener proves. A Secret goes to the proxy only if it is in the proxy's own namespace, or its
// namespace grants it to Gateways of this one.
func (b *builder) certificates(r *collection.Read, k *kubeListener) (Verdict, bool) {
	bad := func(reason gatewayv1.ListenerConditionReason, format string, args ...any) (Verdict, bool) {
		return no("ResolvedRefs", string(reason), format, args...), false
	}
	proxies, _, _ := strings.Cut(b.serviceOf(k.gateway), "/")
	if k.spec.TLS == nil || len(k.spec.TLS.CertificateRefs) == 0 {
		return bad(gatewayv1.ListenerReasonInvalidCertificateRef, "there are no certificateRefs")
	}
	for _, ref := range k.spec.TLS.CertificateRefs {
		if deref(ref.Group, "") != "" || deref(ref.Kind, "Secret") != "Secret" {
			return bad(gatewayv1.ListenerReasonInvalidCertificateRef, "certificateRef %s is no Secret", ref.Name)
		}
		ns := string(deref(ref.Namespace, gatewayv1.Namespace(k.gateway.Namespace)))
		if ns != proxies || ns != k.gateway.Namespace {
			if !b.granted(r, "Gateway", k.gateway.Namespace, "Secret", ns, string(ref.Name)) {
				return bad(gatewayv1.ListenerReasonRefNotPermitted,
					"secret %s/%s may not leave its namespace: the Gateway is in %s and its proxies are in %s; add a ReferenceGrant from Gateways of %s to namespace %s",
					ns, ref.Name, k.gateway.Namespace, proxies, k.gateway.Namespace, ns)
			}
		}
		s, err := b.readSecret(r, ns, string(ref.Name))
		if err == nil && len(s.GetCertificateChain()) == 0 {
			err = fmt.Errorf("secret %s/%s has no certificate", ns, ref.Name)
		}
		if err != nil {
			return bad(gatewayv1.ListenerReasonInvalidCertificateRef, "%v", err)
		}
		k.secrets = append(k.secrets, SecretRef{Namespace: ns, Secret: string(ref.Name)})
	}
	return Verdict{}, true
}

// granted reports whether a namespace lets objects of another refer to one of its own.
func (b *builder) granted(r *collection.Read, kind, from, toKind, to, name string) bool {
	for _, g := range collection.Lookup(r, b.grantsIn, to) {
		is := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return f.Group == gatewayv1.GroupName && string(f.Kind) == kind && string(f.Namespace) == from
		})
		may := slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return t.Group == "" && string(t.Kind) == toKind && (t.Name == nil || *t.Name == "" || string(*t.Name) == name)
		})
		if is && may {
			return true
		}
	}
	return false
}

func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// admits reports whether a listener takes routes of a namespace.
func (b *builder) admits(r *collection.Read, k *kubeListener, namespace string) bool {
	var n *gatewayv1.RouteNamespaces
	if k.spec.AllowedRoutes != nil {
		n = k.spec.AllowedRoutes.Namespaces
	}
	from := gatewayv1.NamespacesFromSame
	if n != nil && n.From != nil {
		from = *n.From
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		s, err := metav1.LabelSelectorAsSelector(n.Selector)
		if err != nil || b.Namespaces == nil {
			return false
		}
		ns, ok := collection.Get(r, b.Namespaces, namespace)
		return ok && s.Matches(labels.Set(withName(ns)))
	case gatewayv1.NamespacesFromSame:
		return namespace == k.gateway.Namespace
	}
	return false
}

// withName is a namespace's labels with the one that Kubernetes gives each.
func withName(ns *corev1.Namespace) map[string]string {
	return union(map[string]string{corev1.LabelMetadataName: ns.Name}, ns.Labels)
}

// hostsOf are the hosts that a listener and a route have in common.
func (k *kubeListener) hostsOf(names []gatewayv1.Hostname) []string {
	if len(names) == 0 {
		return []string{k.host()}
	}
	var out []string
	for _, n := range names {
		name := strings.ToLower(string(n))
		switch {
		case within(name, k.host()):
			out = append(out, name)
		case within(k.host(), name):
			out = append(out, k.host())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (k *kubeListener) set() string {
	return fmt.Sprintf("kube.%d.%s.%s.%s", k.spec.Port, k.gateway.Namespace, k.gateway.Name, k.spec.Name)
}

// age orders objects of Kubernetes as the Gateway API does: the oldest first, then by namespace and name.
func age(x, y metav1.Object) int {
	return cmp.Or(
		x.GetCreationTimestamp().Compare(y.GetCreationTimestamp().Time),
		cmp.Compare(x.GetNamespace(), y.GetNamespace()), cmp.Compare(x.GetName(), y.GetName()),
	)
}
