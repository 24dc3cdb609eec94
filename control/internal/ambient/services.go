package ambient

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/mesh"
)

// Service is a service on the wire, with what its workloads must know of it.
type Service struct {
	Wire     *workload.Service
	Selector map[string]string // labels of its workloads; empty: none are selected
	Ports    []PortName        // in the order of Wire.Ports
	Entry    bool              // from a ServiceEntry
	Source   string            // namespace/name of the object
}

// PortName is how a port of a service finds its number on a workload.
type PortName struct {
	Name   string // of the service's port
	Target string // named target port; "" is a number
}

// Key is how a workload names the service it belongs to, and how the wire names the service.
func (s *Service) Key() string { return s.Wire.Namespace + "/" + s.Wire.Hostname }

// Selects reports whether a workload with these labels in this namespace belongs to the service.
func (s *Service) Selects(namespace string, labels map[string]string) bool {
	return s.Wire.Namespace == namespace && selects(s.Selector, labels)
}

// Attached is what the surroundings of a service say about it.
type Attached struct {
	Namespace *corev1.Namespace // nil when unknown
	Waypoint  *Waypoint         // nil for none
	Assigned  Assigned          // addresses of a ServiceEntry's hosts that have none of their own
}

// FromService makes the service of a Kubernetes Service.
func (c Config) FromService(svc *corev1.Service, at Attached) *Service {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil // a name in DNS, with no address of its own
	}
	visibility, exported := visibleTo(exportTo(svc.Annotations), svc.Namespace)
	if !exported {
		return nil
	}
	s := &Service{Selector: svc.Spec.Selector, Source: svc.Namespace + "/" + svc.Name}
	s.Wire = &workload.Service{
		Name:       svc.Name,
		Namespace:  svc.Namespace,
		Hostname:   c.Hostname(svc.Name, svc.Namespace),
		Canonical:  true,
		IpFamilies: families(svc.Spec.IPFamilies),
		Waypoint:   at.Waypoint.Address(),
		Visibility: visibility,
	}
	for _, vip := range clusterIPs(svc) {
		if a, ok := c.networkAddress(vip); ok {
			s.Wire.Addresses = append(s.Wire.Addresses, a)
		}
	}
	for _, p := range svc.Spec.Ports {
		port := &workload.Port{ServicePort: uint32(p.Port), TargetPort: uint32(p.TargetPort.IntVal), AppProtocol: kubeProtocol(p)}
		if port.TargetPort == 0 && p.TargetPort.StrVal == "" {
			port.TargetPort = port.ServicePort // an absent targetPort is the port itself
		}
		s.Wire.Ports = append(s.Wire.Ports, port)
		s.Ports = append(s.Ports, PortName{Name: p.Name, Target: p.TargetPort.StrVal})
	}
	if local := svc.Spec.InternalTrafficPolicy; local != nil && *local == corev1.ServiceInternalTrafficPolicyLocal {
		s.Wire.LoadBalancing = &workload.LoadBalancing{Mode: workload.LoadBalancing_STRICT, RoutingPreference: []workload.LoadBalancing_Scope{workload.LoadBalancing_NODE}}
	} else {
		s.Wire.LoadBalancing = distribution(svc.Spec.TrafficDistribution, svc.Annotations, at.Namespace)
	}
	if svc.Spec.PublishNotReadyAddresses {
		if s.Wire.LoadBalancing == nil {
			s.Wire.LoadBalancing = &workload.LoadBalancing{}
		}
		s.Wire.LoadBalancing.HealthPolicy = workload.LoadBalancing_ALLOW_ALL
	}
	s.Wire.IngressUseWaypoint = at.Waypoint != nil && ingressUsesWaypoint(svc.Labels, at.Namespace)
	return s
}

func ingressUsesWaypoint(labels map[string]string, ns *corev1.Namespace) bool {
	v, ok := labels[mesh.LabelIngressUseWaypoint]
	if !ok && ns != nil {
		v = ns.Labels[mesh.LabelIngressUseWaypoint]
	}
	return strings.EqualFold(v, "true")
}

func clusterIPs(svc *corev1.Service) []string {
	ips := svc.Spec.ClusterIPs
	if len(ips) == 0 && svc.Spec.ClusterIP != "" {
		ips = []string{svc.Spec.ClusterIP}
	}
	if len(ips) == 1 && ips[0] == corev1.ClusterIPNone {
		return nil
	}
	return ips
}

func families(f []corev1.IPFamily) workload.IPFamilies {
	switch {
	case len(f) == 2:
		return workload.IPFamilies_DUAL
	case len(f) == 1 && f[0] == corev1.IPv4Protocol:
		return workload.IPFamilies_IPV4_ONLY
	case len(f) == 1:
		return workload.IPFamilies_IPV6_ONLY
	}
	return workload.IPFamilies_AUTOMATIC
}

// distribution reads where traffic should rather go: the field, else the annotation, else the namespace's annotation.
func distribution(field *string, annotations map[string]string, ns *corev1.Namespace) *workload.LoadBalancing {
	want := ""
	switch {
	case field != nil:
		want = *field
	case annotations[mesh.AnnotationTrafficDistrib] != "":
		want = annotations[mesh.AnnotationTrafficDistrib]
	case ns != nil:
		want = ns.Annotations[mesh.AnnotationTrafficDistrib]
	}
	near := []workload.LoadBalancing_Scope{
		workload.LoadBalancing_NETWORK, workload.LoadBalancing_REGION, workload.LoadBalancing_ZONE, workload.LoadBalancing_SUBZONE,
	}
	switch {
	case strings.EqualFold(want, "PreferClose"), strings.EqualFold(want, "PreferSameZone"):
	case strings.EqualFold(want, "PreferSameNode"):
		near = append(near, workload.LoadBalancing_NODE)
	default:
		return nil
	}
	return &workload.LoadBalancing{Mode: workload.LoadBalancing_FAILOVER, RoutingPreference: near}
}

// kubeProtocol reads a port's protocol from appProtocol, else from its name (http, http-web, grpc …).
func kubeProtocol(p corev1.ServicePort) workload.AppProtocol {
	if p.Protocol == corev1.ProtocolUDP || p.Protocol == corev1.ProtocolSCTP {
		return workload.AppProtocol_UNKNOWN
	}
	if p.AppProtocol != nil {
		switch *p.AppProtocol {
		case "kubernetes.io/h2c":
			return workload.AppProtocol_HTTP2
		case "kubernetes.io/ws", "kubernetes.io/wss":
			return workload.AppProtocol_HTTP11
		}
		return Protocol(*p.AppProtocol)
	}
	name, _, _ := strings.Cut(p.Name, "-")
	return Protocol(name)
}

// Protocol reads the word for a protocol as Istio writes it in port names and in ServiceEntry ports.
func Protocol(word string) workload.AppProtocol {
	switch strings.ToLower(word) {
	case "http":
		return workload.AppProtocol_HTTP11
	case "http2":
		return workload.AppProtocol_HTTP2
	case "grpc", "grpc-web":
		return workload.AppProtocol_GRPC
	case "https", "tls":
		return workload.AppProtocol_TLS
	case "tcp", "mongo", "redis", "mysql":
		return workload.AppProtocol_TCP
	}
	return workload.AppProtocol_UNKNOWN
}
