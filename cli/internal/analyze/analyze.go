// Package analyze finds what is valid in objects and still most likely a mistake, under the codes of Istio's analyzers.
package analyze

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// Message is one finding.
type Message struct {
	Level  string `json:"level"` // Error, Warning or Info
	Code   string `json:"code"`
	Origin string `json:"origin"` // "Kind namespace/name"
	Text   string `json:"message"`
}

func (m Message) String() string {
	return fmt.Sprintf("%s [%s] (%s) %s", m.Level, m.Code, m.Origin, m.Text)
}

// analysis is one run.
type analysis struct {
	services map[string]bool // "host.namespace.svc.domain" and hosts of entries
	gateways map[string]*networkingv1.Gateway
	pods     []labelled
	found    []Message
}

// labelled is a pod, or a template of pods.
type labelled struct {
	namespace string
	labels    map[string]string
}

// Run analyzes objects together; templates of workloads stand for their pods.
func Run(objects []kinds.Object) []Message {
	a := &analysis{services: map[string]bool{}, gateways: map[string]*networkingv1.Gateway{}}
	for _, o := range objects {
		a.know(o)
	}
	for _, o := range objects {
		a.judge(o)
	}
	slices.SortStableFunc(a.found, func(x, y Message) int {
		return cmp.Or(cmp.Compare(x.Level, y.Level), cmp.Compare(x.Code, y.Code), cmp.Compare(x.Origin, y.Origin), cmp.Compare(x.Text, y.Text))
	})
	return a.found
}

func (a *analysis) add(o kinds.Object, level, code, format string, args ...any) {
	name := o.GetName()
	if o.GetNamespace() != "" {
		name = o.GetNamespace() + "/" + name
	}
	a.found = append(a.found, Message{level, code, kinds.Of(o).Kind + " " + name, fmt.Sprintf(format, args...)})
}

func (a *analysis) know(o kinds.Object) {
	switch x := o.(type) {
	case *corev1.Service:
		a.services[fqdn(x.Name, x.Namespace)] = true
	case *networkingv1.ServiceEntry:
		for _, h := range x.Spec.GetHosts() {
			a.services[h] = true
		}
	case *networkingv1.Gateway:
		a.gateways[x.Namespace+"/"+x.Name] = x
	}
	if l, ok := podLabels(o); ok {
		a.pods = append(a.pods, labelled{o.GetNamespace(), l})
	}
}

func (a *analysis) judge(o kinds.Object) {
	for _, p := range kinds.Validate(o) {
		a.add(o, "Error", "IST0106", "Schema validation error: %s", p.Error())
	}
	switch x := o.(type) {
	case *corev1.Service:
		a.ports(x)
	case *networkingv1.VirtualService:
		a.virtualService(x)
	case *networkingv1.Gateway:
		s := x.Spec.GetSelector()
		standard := len(s) == 1 && s["istio"] == "ingressgateway" // every mesh has one; files of an application do not
		if len(s) > 0 && !standard && !a.anyPod(s, "") {
			a.add(o, "Error", "IST0101", "Referenced selector not found: %q", text(s))
		}
	case *securityv1.AuthorizationPolicy:
		a.selects(o, x.Spec.GetSelector().GetMatchLabels(), x.Namespace)
	case *securityv1.PeerAuthentication:
		a.selects(o, x.Spec.GetSelector().GetMatchLabels(), x.Namespace)
	}
}

// selects wants pods behind a selector: in namespace, or anywhere if that is the root's.
func (a *analysis) selects(o kinds.Object, selector map[string]string, namespace string) {
	if namespace == mesh.SystemNamespace {
		namespace = ""
	}
	if len(selector) > 0 && !a.anyPod(selector, namespace) {
		a.add(o, "Warning", "IST0127", "No matching workloads for this resource with the following labels: %s", text(selector))
	}
}

// anyPod tells whether a selector has pods in a namespace, or anywhere if that is "".
func (a *analysis) anyPod(selector map[string]string, namespace string) bool {
	return slices.ContainsFunc(a.pods, func(p labelled) bool {
		return (namespace == "" || p.namespace == namespace) && within(selector, p.labels)
	})
}

// ports wants each port of a service of applications to say its protocol.
func (a *analysis) ports(s *corev1.Service) {
	if s.Namespace == mesh.SystemNamespace || strings.HasPrefix(s.Namespace, "kube-") {
		return
	}
	for _, p := range s.Spec.Ports {
		word, _, _ := strings.Cut(p.Name, "-")
		switch {
		case p.AppProtocol != nil, p.Protocol == corev1.ProtocolUDP:
		case slices.Contains([]string{"http", "http2", "https", "grpc", "grpcweb", "tcp", "tls", "mongo", "mysql", "redis", "udp"}, word):
		default:
			a.add(s, "Info", "IST0118", "Port name %s (port: %d, targetPort: %s) doesn't follow the naming convention of Istio port.", p.Name, p.Port, p.TargetPort.String())
		}
	}
}

func (a *analysis) virtualService(v *networkingv1.VirtualService) {
	for _, name := range v.Spec.GetGateways() {
		if name == "mesh" {
			continue
		}
		key := name
		if !strings.Contains(name, "/") {
			key = v.Namespace + "/" + name
		}
		g := a.gateways[key]
		if g == nil {
			a.add(v, "Error", "IST0101", "Referenced gateway not found: %q", name)
			continue
		}
		for _, h := range v.Spec.GetHosts() {
			if !admits(g, v.Namespace, h) {
				a.add(v, "Warning", "IST0132", "one or more host [%s] defined in VirtualService %s/%s not found in Gateway %s.", h, v.Namespace, v.Name, key)
			}
		}
	}
	missing := map[string]bool{}
	for _, r := range v.Spec.GetHttp() {
		for _, d := range r.GetRoute() {
			missing[d.GetDestination().GetHost()] = true
		}
	}
	for _, r := range v.Spec.GetTcp() {
		for _, d := range r.GetRoute() {
			missing[d.GetDestination().GetHost()] = true
		}
	}
	for h := range missing {
		if !a.services[h] && !a.services[fqdn(h, v.Namespace)] {
			a.add(v, "Error", "IST0101", "Referenced host not found: %q", h)
		}
	}
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
