package routing

import (
	"cmp"
	"maps"
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/collection"
)

// Proxy is a pod that Gateways select.
type Proxy struct {
	Name                           string // "Pod/namespace/service account/name"
	Namespace, Pod, ServiceAccount string
	Labels                         map[string]string
	Gateways                       []*networkingv1.Gateway // the oldest first
	Kube                           []*gatewayv1.Gateway    // likewise
	Targets                        map[uint32][]uint32     // port of its Services → ports of the pod
}

func sameProxy(x, y *Proxy) bool {
	return x.Name == y.Name && maps.Equal(x.Labels, y.Labels) && slices.Equal(x.Gateways, y.Gateways) && slices.Equal(x.Kube, y.Kube) &&
		maps.EqualFunc(x.Targets, y.Targets, slices.Equal)
}

// selectorKeys files a Gateway under one label of its selector, so that a pod finds it by its own labels. A Gateway
// without a selector selects nothing here.
func selectorKeys(g *networkingv1.Gateway) []string {
	if label, value, ok := leastLabel(g.Spec.GetSelector()); ok {
		return []string{label + "=" + value}
	}
	return nil
}

// leastLabel is the first label of a selector by name, false if it has none.
func leastLabel(selector map[string]string) (label, value string, ok bool) {
	if len(selector) == 0 {
		return "", "", false
	}
	label = slices.Min(slices.Collect(maps.Keys(selector)))
	return label, selector[label], true
}

// choices files a Service under one label of its selector, as selectorKeys does, so that one among thousands of a
// namespace is no concern of all its pods.
func choices(s *corev1.Service) []string {
	if label, value, ok := leastLabel(s.Spec.Selector); ok {
		return []string{choice(s.Namespace, label, value)}
	}
	return nil
}

func choice(namespace, label, value string) string { return namespace + "/" + label + "=" + value }

// proxy tells which Gateways a pod serves.
func (b *builder) proxy(r *collection.Read, pod *corev1.Pod) (*Proxy, bool) {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return nil, false
	}
	var gws []*networkingv1.Gateway
	for k, v := range pod.Labels {
		for _, g := range collection.Lookup(r, b.bySelector, k+"="+v) {
			if covers(g.Spec.GetSelector(), pod.Labels) {
				gws = append(gws, g)
			}
		}
	}
	slices.SortFunc(gws, func(x, y *networkingv1.Gateway) int { return byAge(x, y) })
	sa := cmp.Or(pod.Spec.ServiceAccountName, "default")
	p := &Proxy{
		Name: proxyName(pod.Namespace, sa, pod.Name), Namespace: pod.Namespace, Pod: pod.Name, ServiceAccount: sa,
		Labels: pod.Labels, Gateways: gws, Targets: map[uint32][]uint32{},
	}
	var services []*corev1.Service
	for k, v := range pod.Labels {
		for _, s := range collection.Lookup(r, b.byChoice, choice(pod.Namespace, k, v)) {
			if covers(s.Spec.Selector, pod.Labels) {
				services = append(services, s)
			}
		}
	}
	slices.SortFunc(services, func(x, y *corev1.Service) int { return byAge(x, y) })
	for _, s := range services {
		p.Kube = append(p.Kube, collection.Lookup(r, b.kubeByService, s.Namespace+"/"+s.Name)...)
		for _, port := range s.Spec.Ports {
			if port.Protocol != "" && port.Protocol != corev1.ProtocolTCP {
				continue
			}
			if t, ok := targetPort(pod, port); ok && !slices.Contains(p.Targets[uint32(port.Port)], t) {
				p.Targets[uint32(port.Port)] = append(p.Targets[uint32(port.Port)], t)
			}
		}
	}
	slices.SortFunc(p.Kube, func(x, y *gatewayv1.Gateway) int { return age(x, y) })
	return p, len(p.Gateways)+len(p.Kube) > 0
}

// ports is what a server with this number binds: the target ports of the proxy's Services, else the number itself.
func (p *Proxy) ports(number uint32) []uint32 {
	if t := p.Targets[number]; len(t) > 0 {
		return t
	}
	return []uint32{number}
}

func targetPort(pod *corev1.Pod, port corev1.ServicePort) (uint32, bool) {
	name := port.TargetPort.StrVal
	if name == "" {
		if n := port.TargetPort.IntVal; n > 0 {
			return uint32(n), true
		}
		return uint32(port.Port), true
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == name {
				return uint32(p.ContainerPort), true
			}
		}
	}
	return 0, false
}

func covers(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// byAge orders objects as Istio does: the oldest first, then by name and namespace.
func byAge(x, y metav1.Object) int {
	return cmp.Or(
		x.GetCreationTimestamp().Compare(y.GetCreationTimestamp().Time),
		cmp.Compare(x.GetName(), y.GetName()), cmp.Compare(x.GetNamespace(), y.GetNamespace()),
	)
}
