package analyze

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func gateways(a *analysis) {
	each(a, func(l kinds.Located, g *networkingv1.Gateway) {
		pods := a.selected(g.Spec.GetSelector(), "")
		if len(g.Spec.GetSelector()) > 0 && len(pods) == 0 {
			if !a.live && standard(g) {
				a.alike(l, g)
				return // every mesh has one; files of an application do not
			}
			a.add(l, finding{
				Error, "IST0101", "spec.selector", fmt.Sprintf("Referenced selector not found: %q", text(g.Spec.GetSelector())),
				"select the labels of a gateway's pods, such as istio=ingressgateway",
			})
			a.alike(l, g)
			return
		}
		a.gatewayPorts(l, g, pods)
		a.credentials(l, g, pods)
		a.alike(l, g)
	})
}

func standard(g *networkingv1.Gateway) bool {
	s := g.Spec.GetSelector()
	return len(s) == 1 && s["istio"] == "ingressgateway"
}

// gatewayPorts wants a service of the gateway's pods to lead to each of its ports.
func (a *analysis) gatewayPorts(l kinds.Located, g *networkingv1.Gateway, pods []pod) {
	open, served := map[uint32]bool{}, false
	for _, p := range pods {
		for _, s := range a.behind(p) {
			served = true
			for _, port := range s.Spec.Ports {
				open[uint32(port.Port)] = true
				if n := port.TargetPort.IntValue(); n > 0 {
					open[uint32(n)] = true
				}
			}
		}
	}
	for i, s := range g.Spec.GetServers() {
		if n := s.GetPort().GetNumber(); served && !open[n] {
			a.add(l, finding{
				Warning, "IST0162", fmt.Sprintf("spec.servers[%d].port.number", i), fmt.Sprintf("The gateway is listening on a target port (port %d) that is not defined in the Service "+
					"associated with its workload instances (Pod selector %s). If you need to access the gateway port through the gateway Service, it will not be available.", n, text(g.Spec.GetSelector())),
				fmt.Sprintf("add port %d to the gateway's Service, or use one that it has", n),
			})
		}
	}
}

// credentials wants the certificates that a gateway names to be there, and to be certificates.
func (a *analysis) credentials(l kinds.Located, g *networkingv1.Gateway, pods []pod) {
	if len(pods) == 0 || slices.Contains(a.unseen, "Secret") {
		return
	}
	namespace := pods[0].namespace
	for i, s := range g.Spec.GetServers() {
		for _, name := range append(slices.Clone(s.GetTls().GetCredentialNames()), s.GetTls().GetCredentialName()) {
			if name == "" {
				continue
			}
			path := fmt.Sprintf("spec.servers[%d].tls.credentialName", i)
			secret := a.secrets[namespace+"/"+name]
			if secret == nil {
				a.add(l, finding{
					Error, "IST0101", path, fmt.Sprintf("Referenced credentialName not found: %q", name),
					fmt.Sprintf("create Secret %s in namespace %s, where the gateway's pods are", name, namespace),
				})
				continue
			}
			if why := badCertificate(secret, s.GetTls().GetMode()); why != "" {
				a.add(l, finding{
					Error, "IST0161", path, fmt.Sprintf("The credential referenced by the Gateway %s in namespace %s is invalid, which can cause the traffic not to work as expected.", g.Name, namespace),
					fmt.Sprintf("Secret %s: %s", name, why),
				})
			}
		}
	}
}

// badCertificate says why a secret is no certificate for a mode of TLS; "" if it is one.
func badCertificate(s *corev1.Secret, mode networkingv1alpha3.ServerTLSSettings_TLSmode) string {
	first := func(names ...string) []byte {
		for _, n := range names {
			if len(s.Data[n]) > 0 {
				return s.Data[n]
			}
		}
		return nil
	}
	chain, key := first("tls.crt", "cert"), first("tls.key", "key")
	switch {
	case chain == nil:
		return "it has no tls.crt"
	case key == nil:
		return "it has no tls.key"
	case mode == networkingv1alpha3.ServerTLSSettings_MUTUAL && first("ca.crt", "cacert") == nil:
		return "it has no ca.crt, which mode MUTUAL needs to know clients by"
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return strings.TrimPrefix(err.Error(), "tls: ")
	}
	return ""
}

// alike finds other gateways of the same pods that take the same hosts on the same port.
func (a *analysis) alike(l kinds.Located, g *networkingv1.Gateway) {
	for i, s := range g.Spec.GetServers() {
		var others []string
		for key, o := range a.gateways {
			if o == g || text(o.Spec.GetSelector()) != text(g.Spec.GetSelector()) {
				continue
			}
			if slices.ContainsFunc(o.Spec.GetServers(), func(os *networkingv1alpha3.Server) bool { return sameDoor(s, os) }) {
				others = append(others, key)
			}
		}
		if len(others) > 0 {
			slices.Sort(others)
			a.add(l, finding{
				Error, "IST0145", fmt.Sprintf("spec.servers[%d].hosts", i), fmt.Sprintf("Conflict with gateways %s (workload selector %s, port %d, hosts %s).",
					strings.Join(others, ","), text(g.Spec.GetSelector()), s.GetPort().GetNumber(), strings.Join(s.GetHosts(), ",")),
				"give each host to one Gateway only, or use another port",
			})
		}
	}
}

func sameDoor(a, b *networkingv1alpha3.Server) bool {
	if a.GetPort().GetNumber() != b.GetPort().GetNumber() || a.GetBind() != b.GetBind() {
		return false
	}
	bare := func(h string) string {
		if _, host, ok := strings.Cut(h, "/"); ok {
			return host
		}
		return h
	}
	return slices.ContainsFunc(a.GetHosts(), func(h string) bool {
		return slices.ContainsFunc(b.GetHosts(), func(o string) bool { return bare(o) == bare(h) })
	})
}

// admits tells whether a server of a gateway takes a host for a namespace.
func admits(g *networkingv1.Gateway, namespace, host string) bool {
	for _, s := range g.Spec.GetServers() {
		for _, h := range s.GetHosts() {
			ns, name, scoped := strings.Cut(h, "/")
			if !scoped {
				ns, name = "*", h
			}
			if ns != "*" && ns != namespace && (ns != "." || g.Namespace != namespace) {
				continue
			}
			if name == host || name == "*" || strings.HasPrefix(name, "*.") && strings.HasSuffix(host, name[1:]) ||
				host == "*" || strings.HasPrefix(host, "*.") && strings.HasSuffix(name, host[1:]) {
				return true
			}
		}
	}
	return false
}
