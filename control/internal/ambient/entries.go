package ambient

import (
	"maps"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/api/workload"
)

// FromServiceEntry makes one service of each host of a ServiceEntry.
func (c Config) FromServiceEntry(se *networkingv1.ServiceEntry, at Attached) []*Service {
	visibility, exported := visibleTo(se.Spec.ExportTo, se.Namespace)
	if !exported {
		return nil
	}
	var addresses []*workload.NetworkAddress
	for _, s := range se.Spec.Addresses {
		a, ok := c.networkAddress(s)
		if !ok {
			return nil // half of an entry would send the other half's traffic elsewhere
		}
		addresses = append(addresses, a)
	}
	var ports []*workload.Port
	var names []PortName
	for _, p := range se.Spec.Ports {
		target := p.TargetPort
		if target == 0 {
			target = p.Number
		}
		ports = append(ports, &workload.Port{ServicePort: p.Number, TargetPort: target, AppProtocol: Protocol(p.Protocol)})
		names = append(names, PortName{Name: p.Name})
	}
	lb := distribution(nil, se.Annotations, at.Namespace)
	if se.Spec.Resolution == networkingv1alpha3.ServiceEntry_NONE {
		lb = &workload.LoadBalancing{Mode: workload.LoadBalancing_PASSTHROUGH, HealthPolicy: workload.LoadBalancing_ALLOW_ALL}
	}
	var out []*Service
	for _, host := range se.Spec.Hosts {
		s := &Service{Entry: true, Source: se.Namespace + "/" + se.Name, Selector: se.Spec.GetWorkloadSelector().GetLabels(), Ports: names}
		s.Wire = &workload.Service{
			Name: se.Name, Namespace: se.Namespace, Hostname: strings.ToLower(host),
			Addresses: addresses, Ports: ports, SubjectAltNames: se.Spec.SubjectAltNames,
			LoadBalancing: lb, Waypoint: at.Waypoint.Address(),
			Visibility:         visibility,
			IngressUseWaypoint: at.Waypoint != nil && ingressUsesWaypoint(se.Labels, at.Namespace),
		}
		if slot := at.Assigned.Hosts[s.Wire.Hostname]; slot != 0 && len(addresses) == 0 {
			for _, ip := range []netip.Addr{slot.V4(), slot.V6()} {
				s.Wire.Addresses = append(s.Wire.Addresses, &workload.NetworkAddress{Network: c.Network, Address: ip.AsSlice()})
			}
		}
		out = append(out, s)
	}
	return out
}

// FromServiceEndpoints makes the workloads that a ServiceEntry itself lists, or one per host that DNS resolves.
func (c Config) FromServiceEndpoints(se *networkingv1.ServiceEntry, services []*Service, around Around) []*workload.Workload {
	endpoints := se.Spec.Endpoints
	var out []*workload.Workload
	switch se.Spec.Resolution {
	case networkingv1alpha3.ServiceEntry_DNS, networkingv1alpha3.ServiceEntry_DNS_ROUND_ROBIN, networkingv1alpha3.ServiceEntry_DYNAMIC_DNS:
		if len(endpoints) == 0 && se.Spec.WorkloadSelector == nil {
			for _, s := range services {
				if strings.Contains(s.Wire.Hostname, "*") {
					continue // DNS knows no such name; a waypoint would resolve the one that is asked for
				}
				e := &networkingv1alpha3.WorkloadEntry{Address: s.Wire.Hostname}
				out = append(out, c.endpoint(se, e, []*Service{s}, around))
			}
			return out
		}
	}
	for _, e := range endpoints {
		if !isSocket(e.Address) {
			out = append(out, c.endpoint(se, e, services, around))
		}
	}
	return out
}

// isSocket tells a socket on the client's own machine, which a node proxy cannot reach for it.
func isSocket(address string) bool { return strings.HasPrefix(address, "unix:") }

// Sockets are the endpoints of an entry that no proxy of a node can reach.
func Sockets(se *networkingv1.ServiceEntry) (out []string) {
	for _, e := range se.Spec.Endpoints {
		if isSocket(e.Address) {
			out = append(out, e.Address)
		}
	}
	return out
}

func (c Config) endpoint(se *networkingv1.ServiceEntry, e *networkingv1alpha3.WorkloadEntry, services []*Service, around Around) *workload.Workload {
	w := c.entry(e, services, around)
	w.Uid = c.ClusterID + "/networking.istio.io/ServiceEntry/" + se.Namespace + "/" + se.Name + "/" + e.Address
	w.Name, w.Namespace, w.WorkloadName = se.Name, se.Namespace, se.Name
	labels := both(se.Labels, e.Labels)
	w.CanonicalName, w.CanonicalRevision = canonical(labels, w.WorkloadName)
	tunnel(w, labels, se.Annotations)
	return w
}

// EntryUID names the workload of a WorkloadEntry.
func (c Config) EntryUID(we *networkingv1.WorkloadEntry) string {
	return c.ClusterID + "/networking.istio.io/WorkloadEntry/" + we.Namespace + "/" + we.Name
}

// FromWorkloadEntry makes the workload of a WorkloadEntry.
func (c Config) FromWorkloadEntry(we *networkingv1.WorkloadEntry, around Around) *workload.Workload {
	w := c.entry(&we.Spec, around.Services, around)
	w.Uid = c.EntryUID(we)
	w.Name, w.Namespace = we.Name, we.Namespace
	w.WorkloadName = first(we.Annotations, "istio.io/autoRegistrationGroup")
	labels := EntryLabels(we)
	if w.WorkloadName == "" {
		w.WorkloadName = first(labels, labelWorkloadName)
	}
	if w.WorkloadName == "" {
		w.WorkloadName = we.Name
	}
	w.CanonicalName, w.CanonicalRevision = canonical(labels, w.WorkloadName)
	tunnel(w, labels, we.Annotations)
	return w
}

// EntryLabels are the labels of a WorkloadEntry, which people write in either of two places.
func EntryLabels(we *networkingv1.WorkloadEntry) map[string]string {
	return both(we.Labels, we.Spec.Labels)
}

// both are the labels of an object and those inside it, which count where both have one.
func both(outer, inner map[string]string) map[string]string {
	if len(inner) == 0 {
		return outer
	}
	labels := make(map[string]string, len(outer)+len(inner))
	maps.Copy(labels, outer)
	maps.Copy(labels, inner)
	return labels
}

func (c Config) entry(e *networkingv1alpha3.WorkloadEntry, services []*Service, around Around) *workload.Workload {
	w := &workload.Workload{
		ClusterId: c.ClusterID, Network: c.Network, TrustDomain: c.trustDomain(),
		ServiceAccount: e.ServiceAccount, WorkloadType: workload.WorkloadType_POD,
		AuthorizationPolicies: around.Policies, Waypoint: around.Waypoint.Address(),
		Services: entryServices(e, services), Locality: entryLocality(e.Locality),
	}
	if e.Network != "" {
		w.Network = e.Network
	}
	if e.Weight > 0 {
		w.Capacity = wrapperspb.UInt32(e.Weight)
	}
	if a, ok := address(e.Address); ok {
		w.Addresses = [][]byte{a.AsSlice()}
	} else {
		w.Hostname = e.Address
	}
	return w
}

// entryServices finds each service port's number on an entry, which lists its ports by the service's port names.
func entryServices(e *networkingv1alpha3.WorkloadEntry, services []*Service) map[string]*workload.PortList {
	out := map[string]*workload.PortList{}
	for _, s := range services {
		list := &workload.PortList{}
		for i, p := range s.Wire.Ports {
			target := p.TargetPort
			name := s.Ports[i].Name
			if s.Ports[i].Target != "" {
				name = s.Ports[i].Target
			}
			if own, ok := e.Ports[name]; ok {
				target = own
			} else if s.Ports[i].Target != "" {
				continue // a named port that this workload does not have
			}
			list.Ports = append(list.Ports, &workload.Port{ServicePort: p.ServicePort, TargetPort: target})
		}
		out[s.Key()] = list
	}
	return out
}

func entryLocality(s string) *workload.Locality {
	if s == "" {
		return nil
	}
	parts := strings.SplitN(s, "/", 3)
	l := &workload.Locality{Region: parts[0]}
	if len(parts) > 1 {
		l.Zone = parts[1]
	}
	if len(parts) > 2 {
		l.Subzone = parts[2]
	}
	return l
}
