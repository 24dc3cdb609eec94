package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ambit-mesh/ambit/api/explain"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/mesh"
)

// nowhere stands for a client outside whose address nobody said (RFC 5737).
const nowhere = "192.0.2.1"

// split reads NAME or NAME.NAMESPACE.
func (l *look) split(name string) (n, namespace string) {
	n, namespace, _ = strings.Cut(name, ".")
	return n, cmp.Or(namespace, l.namespace)
}

// source is the pod that FROM means, or the address of a client that is none.
func (l *look) source(ctx context.Context, from string) (*corev1.Pod, string, error) {
	if from == "outside" {
		return nil, nowhere, nil
	}
	if from == "gateway" {
		p, err := l.running(ctx, mesh.SystemNamespace, "istio=ingressgateway", "the ingress gateway")
		return p, "", err
	}
	if word, name, ok := strings.Cut(from, "/"); ok {
		if k, known := kinds.Find(word); known && k.Kind == "Node" {
			o, err := l.get(ctx, k, "", name)
			if err != nil {
				return nil, "", err
			}
			for _, a := range o.(*corev1.Node).Status.Addresses {
				if a.Type == corev1.NodeInternalIP {
					return nil, a.Address, nil
				}
			}
			return nil, "", fmt.Errorf("node %s says no address", name)
		}
	}
	if ip, err := netip.ParseAddr(from); err == nil {
		p, err := l.podAt(ctx, ip)
		return p, from, err
	}
	p, err := l.onePod(ctx, from)
	return p, "", err
}

// podAt finds the pod that has an address; nil if none has.
func (l *look) podAt(ctx context.Context, ip netip.Addr) (*corev1.Pod, error) {
	kind, _ := kinds.Find("pods")
	objects, err := l.mesh().List(ctx, kind, "", "")
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		p, ok := o.(*corev1.Pod)
		if ok && !p.Spec.HostNetwork && p.Status.Phase == corev1.PodRunning && slices.ContainsFunc(p.Status.PodIPs, func(a corev1.PodIP) bool { return a.IP == ip.String() }) {
			return p, nil
		}
	}
	return nil, nil
}

// get reads an object; if there is none, the error says what is there instead.
func (l *look) get(ctx context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error) {
	o, err := l.mesh().Get(ctx, k, namespace, name)
	return o, hinted(ctx, l.mesh(), err, k, namespace, name)
}

// onePod finds the pod that POD or KIND/NAME means, a running one first.
func (l *look) onePod(ctx context.Context, text string) (*corev1.Pod, error) {
	kind, _ := kinds.Find("pods")
	if word, name, ok := strings.Cut(text, "/"); ok {
		k, ok := kinds.Find(word)
		if !ok {
			return nil, unknownKind(word)
		}
		name, namespace := l.split(name)
		o, err := l.get(ctx, k, namespace, name)
		if err != nil {
			return nil, err
		}
		if p, ok := o.(*corev1.Pod); ok {
			return p, nil
		}
		selector, err := selectorOf(o)
		if err != nil {
			return nil, err
		}
		return l.running(ctx, namespace, selector, text)
	}
	name, namespace := l.split(text)
	o, err := l.mesh().Get(ctx, kind, namespace, name)
	if err == nil {
		return o.(*corev1.Pod), nil
	}
	for _, word := range []string{"deploy", "sts", "ds"} { // a name without its kind
		k, _ := kinds.Find(word)
		if _, werr := l.mesh().Get(ctx, k, namespace, name); werr == nil {
			return nil, fmt.Errorf("%w; write %s/%s for a pod of it", err, word, text)
		}
	}
	return nil, hinted(ctx, l.mesh(), err, kind, namespace, name)
}

// running finds a running pod with labels, which what calls.
func (l *look) running(ctx context.Context, namespace, selector, what string) (*corev1.Pod, error) {
	kind, _ := kinds.Find("pods")
	objects, err := l.mesh().List(ctx, kind, namespace, selector)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if p, ok := o.(*corev1.Pod); ok && p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no pod of %s runs: see %s", what, l.see("get pods -n", namespace))
}

// target is the address and port, or the host name of the mesh and port, that TO means; note says what was assumed.
func (l *look) target(ctx context.Context, to string) (dialled, note string, err error) {
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		host, port = strings.Trim(to, "[]"), ""
	}
	if _, err := netip.ParseAddr(host); err == nil {
		if port == "" {
			return "", "", fmt.Errorf("%s: add a port", to)
		}
		return net.JoinHostPort(host, port), "", nil
	}
	word, name, qualified := strings.Cut(host, "/")
	if !qualified {
		name = host
	}
	services, _ := kinds.Find("services")
	if k, ok := kinds.Find(word); !qualified || ok && k.Kind == services.Kind {
		name, namespace := l.split(name)
		namespace, rest, _ := strings.Cut(namespace, ".")
		o, gerr := l.mesh().Get(ctx, services, namespace, name)
		switch {
		case gerr == nil && (rest == "" || rest == "svc" || rest == "svc."+mesh.ClusterDomain):
			return l.serviceTarget(ctx, o.(*corev1.Service), port)
		case qualified:
			return "", "", hinted(ctx, l.mesh(), gerr, services, namespace, name)
		case strings.Contains(host, ".") && port != "" && l.namespaceExists(ctx, namespace) != nil:
			return net.JoinHostPort(host, port), "", nil // such as a ServiceEntry's, which ztunnel knows
		}
	}
	p, err := l.onePod(ctx, host)
	if err != nil {
		if !qualified {
			name, namespace := l.split(host)
			near := suggest(name, namesOf(ctx, l.mesh(), services, namespace))
			if near != "" || client.NotFound(err) && l.namespaceExists(ctx, namespace) == nil {
				return "", "", fmt.Errorf("there is no service and no pod %q in namespace %s%s", name, namespace, near)
			}
		}
		return "", "", err
	}
	if port == "" {
		if cs := p.Spec.Containers; len(cs) > 0 && len(cs[0].Ports) > 0 {
			port = strconv.Itoa(int(cs[0].Ports[0].ContainerPort))
			note = "no port was given: this is the first of the container's"
		} else {
			return "", "", fmt.Errorf("%s: add a port", to)
		}
	}
	if p.Status.PodIP == "" {
		return "", "", fmt.Errorf("pod %s has no address yet: it is %s", p.Name, cmp.Or(string(p.Status.Phase), "Pending"))
	}
	if !ready(p) {
		note = strings.TrimPrefix(note+"; the pod is not ready: "+cmp.Or(l.trouble(ctx, p), string(p.Status.Phase)), "; ")
	}
	return net.JoinHostPort(p.Status.PodIP, port), note, nil
}

// serviceTarget is a service's address and a port of it by number or name, the first if none is given. A headless one
// stands for its pods.
func (l *look) serviceTarget(ctx context.Context, s *corev1.Service, port string) (dialled, note string, err error) {
	number := port
	at := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
		return port == "" || port == strconv.Itoa(int(p.Port)) || port == p.Name
	})
	if at >= 0 {
		number = strconv.Itoa(int(s.Spec.Ports[at].Port))
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		var known []string
		for _, p := range s.Spec.Ports {
			known = append(known, strings.TrimPrefix(fmt.Sprintf("%s=%d", p.Name, p.Port), "="))
		}
		return "", "", fmt.Errorf("service %s has no port %q; it has %s", s.Name, port, strings.Join(known, ", "))
	}
	if port == "" {
		note = "no port was given: this is the service's first"
	}
	if s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone {
		return net.JoinHostPort(s.Spec.ClusterIP, number), note, nil // a port that it has not leads nowhere, and that is the explanation
	}
	ends, err := l.endpointsOf(ctx, s, number)
	if err != nil {
		return "", "", err
	}
	if len(ends) == 0 {
		return "", "", fmt.Errorf("service %s has no address of its own (it is headless), and no pod that is ready on port %s", s.Name, number)
	}
	return ends[0].Address, fmt.Sprintf("service %s is headless: its name stands for %d pod(s), and this is the first", s.Name, len(ends)), nil
}

// endpointsOf lists the ready pods of a service for a port of it, as its EndpointSlices have them.
func (l *look) endpointsOf(ctx context.Context, s *corev1.Service, number string) ([]explain.Endpoint, error) {
	name := ""
	for _, p := range s.Spec.Ports {
		if strconv.Itoa(int(p.Port)) == number {
			name = p.Name
		}
	}
	slicesKind, _ := kinds.Find("endpointslices")
	objects, err := l.mesh().List(ctx, slicesKind, s.Namespace, discoveryv1.LabelServiceName+"="+s.Name)
	if err != nil {
		return nil, err
	}
	var ends []explain.Endpoint
	for _, o := range objects {
		es, ok := o.(*discoveryv1.EndpointSlice)
		if !ok {
			continue
		}
		for _, port := range es.Ports {
			if port.Port == nil || port.Name != nil && *port.Name != name {
				continue
			}
			for _, e := range es.Endpoints {
				if e.Conditions.Ready != nil && !*e.Conditions.Ready || e.TargetRef == nil || e.TargetRef.Kind != "Pod" || len(e.Addresses) == 0 {
					continue
				}
				end := explain.Endpoint{
					UID: "//Pod/" + e.TargetRef.Namespace + "/" + e.TargetRef.Name, Namespace: e.TargetRef.Namespace, Name: e.TargetRef.Name,
					Address: net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*port.Port))),
				}
				if e.NodeName != nil {
					end.Node = *e.NodeName
				}
				ends = append(ends, end)
			}
		}
	}
	slices.SortFunc(ends, func(a, b explain.Endpoint) int { return strings.Compare(a.Name, b.Name) })
	return ends, nil
}

// fromOutside says what would become of a connection of a client that is no pod: no ztunnel sees it before the end.
func (l *look) fromOutside(ctx context.Context, e *explanation, address, dialled string) error {
	e.From = address + ", outside the mesh"
	e.Reason = "it is no pod of the mesh"
	if address == nowhere {
		e.Note = strings.TrimPrefix(e.Note+"; a client at "+nowhere+" stands for all: give its address where policies name addresses", "; ")
	}
	e.Outbound = explain.Outbound{Address: address, Dialled: dialled, Kind: "Passthrough", Why: "no ztunnel sees it before its end"}
	host, port, err := net.SplitHostPort(dialled)
	if err != nil {
		return err
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return errors.New("a client outside does not resolve names of the mesh: name a service, a pod or an address")
	}
	pod, err := l.podAt(ctx, ip)
	if err != nil {
		return err
	}
	if pod != nil {
		e.Outbound.Endpoints = []explain.Endpoint{{
			UID: "//Pod/" + pod.Namespace + "/" + pod.Name, Namespace: pod.Namespace, Name: pod.Name, Node: pod.Spec.NodeName, Address: dialled,
		}}
		return nil
	}
	services, _ := kinds.Find("services")
	objects, err := l.mesh().List(ctx, services, "", "")
	if err != nil {
		return err
	}
	for _, o := range objects {
		if s, ok := o.(*corev1.Service); ok && s.Spec.ClusterIP == host {
			e.Outbound.Service = s.Namespace + "/" + s.Name
			e.Outbound.Kind = "Plaintext"
			e.Outbound.Endpoints, err = l.endpointsOf(ctx, s, port)
			return err
		}
	}
	return nil
}
