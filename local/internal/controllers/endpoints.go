package controllers

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

// managedBy marks the slices that are ours; others are somebody's own and are left alone.
const managedBy = "endpointslice-controller.k8s.io"

// endpoints list the pods of each Service that selects any: one slice for each family and each set of port numbers.
func (c *Controllers) endpoints() error {
	have := map[string]*discoveryv1.EndpointSlice{} // by namespace/name
	for _, s := range store.List[*discoveryv1.EndpointSlice](c.Store, "") {
		if s.Labels[discoveryv1.LabelManagedBy] == managedBy {
			have[s.Namespace+"/"+s.Name] = s
		}
	}
	var failed []error
	for _, svc := range store.List[*corev1.Service](c.Store, "") {
		if len(svc.Spec.Selector) == 0 || svc.Spec.Type == corev1.ServiceTypeExternalName || svc.DeletionTimestamp != nil {
			continue
		}
		for _, want := range c.slicesOf(svc) {
			key := want.Namespace + "/" + want.Name
			if old, ok := have[key]; ok {
				failed = append(failed, update(c, old, func(o *discoveryv1.EndpointSlice) {
					o.Labels, o.AddressType, o.Ports, o.Endpoints = want.Labels, want.AddressType, want.Ports, want.Endpoints
				}))
				delete(have, key)
			} else {
				failed = append(failed, c.create(want))
			}
		}
	}
	for _, s := range have {
		failed = append(failed, c.remove(s, nil))
	}
	return errors.Join(failed...)
}

func (c *Controllers) slicesOf(svc *corev1.Service) []*discoveryv1.EndpointSlice {
	made := map[string]*discoveryv1.EndpointSlice{}
	selector := labels.SelectorFromSet(svc.Spec.Selector)
	pods := store.List[*corev1.Pod](c.Store, svc.Namespace)
	slices.SortFunc(pods, compareNames)
	for _, p := range pods {
		if !selector.Matches(labels.Set(p.Labels)) || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
			continue
		}
		ports := portsOf(svc, p)
		for _, ip := range p.Status.PodIPs {
			addr, err := netip.ParseAddr(ip.IP)
			if err != nil {
				continue // the pod has no address yet
			}
			family := discoveryv1.AddressTypeIPv4
			if addr.Is6() {
				family = discoveryv1.AddressTypeIPv6
			}
			if !slices.Contains(svc.Spec.IPFamilies, familyOf(addr)) {
				continue
			}
			name := sliceName(svc.Name, family, ports)
			s, ok := made[name]
			if !ok {
				s = &discoveryv1.EndpointSlice{
					TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
					ObjectMeta: metav1.ObjectMeta{
						Name: name, Namespace: svc.Namespace,
						Labels:          map[string]string{discoveryv1.LabelServiceName: svc.Name, discoveryv1.LabelManagedBy: managedBy},
						OwnerReferences: []metav1.OwnerReference{ownerOf(store.KindFor[*corev1.Service](), svc)},
					},
					AddressType: family, Ports: ports,
				}
				if svc.Spec.ClusterIP == corev1.ClusterIPNone {
					s.Labels[corev1.IsHeadlessService] = ""
				}
				made[name] = s
			}
			s.Endpoints = append(s.Endpoints, endpoint(svc, p, ip.IP))
		}
	}
	return slices.SortedFunc(maps.Values(made), compareNames)
}

func endpoint(svc *corev1.Service, p *corev1.Pod, ip string) discoveryv1.Endpoint {
	serving, ending := ready(p), p.DeletionTimestamp != nil
	e := discoveryv1.Endpoint{
		Addresses: []string{ip},
		Conditions: discoveryv1.EndpointConditions{
			Ready: new(serving && !ending || svc.Spec.PublishNotReadyAddresses), Serving: &serving, Terminating: &ending,
		},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if p.Spec.NodeName != "" {
		e.NodeName = new(p.Spec.NodeName)
	}
	if p.Spec.Hostname != "" && p.Spec.Subdomain == svc.Name {
		e.Hostname = new(p.Spec.Hostname)
	}
	return e
}

// portsOf finds the number of each service port on a pod; a name that the pod has no port of is left out.
func portsOf(svc *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for _, sp := range svc.Spec.Ports {
		number := int32(sp.TargetPort.IntValue())
		if sp.TargetPort.Type == intstr.String {
			number = namedPort(p, sp.TargetPort.StrVal, sp.Protocol)
		} else if number == 0 {
			number = sp.Port
		}
		if number != 0 {
			out = append(out, discoveryv1.EndpointPort{
				Name: new(sp.Name), Port: &number, Protocol: new(cmp.Or(sp.Protocol, corev1.ProtocolTCP)), AppProtocol: sp.AppProtocol,
			})
		}
	}
	return out
}

func namedPort(p *corev1.Pod, name string, protocol corev1.Protocol) int32 {
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name && cmp.Or(port.Protocol, corev1.ProtocolTCP) == cmp.Or(protocol, corev1.ProtocolTCP) {
				return port.ContainerPort
			}
		}
	}
	return 0
}

func sliceName(service string, family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	h := fnv.New32a()
	for _, p := range ports {
		fmt.Fprintf(h, "%s %d %s\n", *p.Name, *p.Port, *p.Protocol)
	}
	return fmt.Sprintf("%s-%s-%08x", service, strings.ToLower(string(family)), h.Sum32())
}
