package ambient

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/mesh"
)

// labelWorkloadName gives a workload another name than that of what it is deployed by.
const labelWorkloadName = "service.istio.io/workload-name"

// Around is what the surroundings of a workload say about it.
type Around struct {
	Services []*Service   // those it belongs to
	Policies []string     // names of the policies that select it
	Node     *corev1.Node // nil when unknown
	Waypoint *Waypoint    // nil for none
	Tunnel   *workload.ApplicationTunnel
}

// Alive reports whether a pod is a workload: it has an address and has not ended. A pod whose init containers still
// run is one, since these need the network too.
func Alive(p *corev1.Pod) bool {
	return p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed && len(podIPs(p)) > 0
}

// FromPod makes the workload of a pod, or nil.
func (c Config) FromPod(p *corev1.Pod, around Around) *workload.Workload {
	if !Alive(p) {
		return nil
	}
	w := &workload.Workload{
		Uid:  c.ClusterID + "//Pod/" + p.Namespace + "/" + p.Name,
		Name: p.Name, Namespace: p.Namespace,
		Network: c.Network, ClusterId: c.ClusterID, TrustDomain: c.trustDomain(),
		ServiceAccount: p.Spec.ServiceAccountName, Node: p.Spec.NodeName,
		Services:              podServices(p, around.Services),
		AuthorizationPolicies: around.Policies,
		Waypoint:              around.Waypoint.Address(),
		ApplicationTunnel:     around.Tunnel,
		Locality:              nodeLocality(around.Node),
	}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default" // as the API server fills it in
	}
	for _, ip := range podIPs(p) {
		a, ok := address(ip)
		if !ok {
			return nil
		}
		w.Addresses = append(w.Addresses, a.AsSlice())
	}
	if !ready(p) || p.DeletionTimestamp != nil {
		w.Status = workload.WorkloadStatus_UNHEALTHY
	}
	if p.Spec.HostNetwork {
		w.NetworkMode = workload.NetworkMode_HOST_NETWORK
	}
	w.WorkloadName, w.WorkloadType = owner(p)
	if name := p.Labels[labelWorkloadName]; name != "" {
		w.WorkloadName = name
	}
	w.CanonicalName, w.CanonicalRevision = canonical(p.Labels, w.WorkloadName)
	tunnel(w, p.Labels, p.Annotations)
	return w
}

// tunnel says how a workload is reached: a captured pod by HBONE, and one that speaks it itself.
func tunnel(w *workload.Workload, labels, annotations map[string]string) {
	if annotations[mesh.AnnotationRedirection] == mesh.RedirectionEnabled {
		w.TunnelProtocol = workload.TunnelProtocol_HBONE
	}
	if labels[mesh.LabelTunnel] == "http" {
		w.TunnelProtocol = workload.TunnelProtocol_HBONE
		w.NativeTunnel = true
	}
}

func podIPs(p *corev1.Pod) []string {
	var ips []string
	for _, ip := range p.Status.PodIPs {
		if ip.IP != "" {
			ips = append(ips, ip.IP)
		}
	}
	if len(ips) == 0 && p.Status.PodIP != "" {
		ips = []string{p.Status.PodIP}
	}
	return ips
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// owner is what a person deployed: the Deployment of a ReplicaSet, the CronJob of a Job, else the owner or the pod.
func owner(p *corev1.Pod) (string, workload.WorkloadType) {
	ref := metav1.GetControllerOf(p)
	if ref == nil {
		return p.Name, workload.WorkloadType_POD
	}
	switch ref.Kind {
	case "ReplicaSet":
		// The Deployment's name is the ReplicaSet's without "-" and the hash of the pod template.
		if hash := p.Labels["pod-template-hash"]; hash != "" {
			if name, ok := cutSuffix(ref.Name, "-"+hash); ok {
				return name, workload.WorkloadType_DEPLOYMENT
			}
		}
		return ref.Name, workload.WorkloadType_POD
	case "Deployment":
		return ref.Name, workload.WorkloadType_DEPLOYMENT
	case "Job":
		// A CronJob's Job ends with "-" and the minute it was due, at least eight digits.
		for i := len(ref.Name) - 1; i > 0; i-- {
			if c := ref.Name[i]; c == '-' && len(ref.Name)-i > 8 {
				return ref.Name[:i], workload.WorkloadType_CRONJOB
			} else if c < '0' || c > '9' {
				break
			}
		}
		return ref.Name, workload.WorkloadType_JOB
	}
	return ref.Name, workload.WorkloadType_POD
}

func cutSuffix(s, suffix string) (string, bool) {
	if len(s) > len(suffix) && s[len(s)-len(suffix):] == suffix {
		return s[:len(s)-len(suffix)], true
	}
	return s, false
}

// podServices finds each service port's number on a pod.
func podServices(p *corev1.Pod, services []*Service) map[string]*workload.PortList {
	out := make(map[string]*workload.PortList, len(services))
	for _, s := range services {
		list := &workload.PortList{}
		for i, port := range s.Wire.Ports {
			target := port.TargetPort
			switch name := s.Ports[i]; {
			case name.Target != "":
				n, ok := namedPort(p, name.Target)
				if !ok {
					continue // this pod does not serve the port
				}
				target = n
			case s.Entry:
				if n, ok := namedPort(p, name.Name); ok {
					target = n
				}
			}
			list.Ports = append(list.Ports, &workload.Port{ServicePort: port.ServicePort, TargetPort: target})
		}
		out[s.Key()] = list
	}
	return out
}

func namedPort(p *corev1.Pod, name string) (uint32, bool) {
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name && (port.Protocol == "" || port.Protocol == corev1.ProtocolTCP) {
				return uint32(port.ContainerPort), true
			}
		}
	}
	for _, c := range p.Spec.InitContainers { // those that keep running beside the others
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		for _, port := range c.Ports {
			if port.Name == name && (port.Protocol == "" || port.Protocol == corev1.ProtocolTCP) {
				return uint32(port.ContainerPort), true
			}
		}
	}
	return 0, false
}

func nodeLocality(n *corev1.Node) *workload.Locality {
	if n == nil {
		return nil
	}
	l := &workload.Locality{
		Region:  first(n.Labels, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaRegion),
		Zone:    first(n.Labels, corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaZone),
		Subzone: first(n.Labels, "topology.istio.io/subzone"),
	}
	if l.Region == "" && l.Zone == "" && l.Subzone == "" {
		return nil
	}
	return l
}

// PodAddresses are those by which a pod, and nothing else, is known.
func PodAddresses(p *corev1.Pod) []string {
	if p.Spec.HostNetwork || !Alive(p) {
		return nil
	}
	return podIPs(p)
}

// FromEndpointSlice makes the workloads of a slice that somebody wrote by hand; pods that a Service selects are its
// workloads by themselves. podAt is the workload of a pod that has an address, or nil.
func (c Config) FromEndpointSlice(es *discoveryv1.EndpointSlice, svc *Service, podAt func(address string) *workload.Workload) []*workload.Workload {
	if svc == nil || es.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	list := &workload.PortList{}
	for _, p := range es.Ports {
		if p.Port == nil || (p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP) {
			continue
		}
		for i, port := range svc.Wire.Ports {
			if p.Name == nil && len(svc.Wire.Ports) == 1 || p.Name != nil && svc.Ports[i].Name == *p.Name {
				list.Ports = append(list.Ports, &workload.Port{ServicePort: port.ServicePort, TargetPort: uint32(*p.Port)})
				break
			}
		}
	}
	var out []*workload.Workload
	seen := map[string]bool{}
	for _, e := range es.Endpoints {
		selected := e.TargetRef != nil && e.TargetRef.Kind == "Pod" && len(svc.Selector) > 0
		if selected || len(e.Addresses) == 0 || seen[e.Addresses[0]] {
			continue
		}
		a, ok := address(e.Addresses[0])
		if !ok {
			continue
		}
		seen[e.Addresses[0]] = true
		w := podAt(e.Addresses[0]) // it is reached as what it is
		if w == nil {
			w = &workload.Workload{
				Name: es.Name, Namespace: es.Namespace, Network: c.Network, ClusterId: c.ClusterID, TrustDomain: c.trustDomain(),
			}
		}
		w.Uid = c.ClusterID + "/discovery.k8s.io/EndpointSlice/" + es.Namespace + "/" + es.Name + "/" + e.Addresses[0]
		w.Addresses = [][]byte{a.AsSlice()}
		w.Services = map[string]*workload.PortList{svc.Key(): list}
		// Others may have the address too, and a pod has it before its slices: nobody is looked up by it.
		w.NetworkMode = workload.NetworkMode_HOST_NETWORK
		w.Status = workload.WorkloadStatus_HEALTHY
		if e.Conditions.Ready != nil && !*e.Conditions.Ready {
			w.Status = workload.WorkloadStatus_UNHEALTHY
		}
		out = append(out, w)
	}
	return out
}
