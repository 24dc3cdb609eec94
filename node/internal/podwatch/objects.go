// Package podwatch knows the pods of this node and all namespaces, from the Kubernetes API.
package podwatch

import "net/netip"

// Key names a pod.
type Key struct{ Namespace, Name string }

func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Pod is what the agent needs of a pod. Values are never changed.
type Pod struct {
	Key
	UID            string
	ServiceAccount string
	Labels         map[string]string
	Annotations    map[string]string
	HostNetwork    bool
	Phase          string
	IPs            []netip.Addr
}

// Finished reports whether none of the pod's processes will run again.
func (p Pod) Finished() bool { return p.Phase == "Succeeded" || p.Phase == "Failed" }

// Namespace is what the agent needs of a namespace.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// metadata, podObject and namespaceObject are the parts of the API's JSON that we read.
type metadata struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	UID             string            `json:"uid"`
	ResourceVersion string            `json:"resourceVersion"`
	Labels          map[string]string `json:"labels"`
	Annotations     map[string]string `json:"annotations"`
}

type podObject struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		ServiceAccountName string `json:"serviceAccountName"`
		HostNetwork        bool   `json:"hostNetwork"`
	} `json:"spec"`
	Status struct {
		Phase  string `json:"phase"`
		PodIP  string `json:"podIP"`
		PodIPs []struct {
			IP string `json:"ip"`
		} `json:"podIPs"`
	} `json:"status"`
}

func (o podObject) meta() metadata { return o.Metadata }

func (o podObject) pod() Pod {
	p := Pod{
		Key: Key{o.Metadata.Namespace, o.Metadata.Name}, UID: o.Metadata.UID, ServiceAccount: o.Spec.ServiceAccountName,
		Labels: o.Metadata.Labels, Annotations: o.Metadata.Annotations, HostNetwork: o.Spec.HostNetwork, Phase: o.Status.Phase,
	}
	if p.ServiceAccount == "" {
		p.ServiceAccount = "default"
	}
	words := []string{o.Status.PodIP}
	for _, ip := range o.Status.PodIPs {
		if ip.IP != o.Status.PodIP {
			words = append(words, ip.IP)
		}
	}
	for _, w := range words {
		if a, err := netip.ParseAddr(w); err == nil { // "" while the pod has no address
			p.IPs = append(p.IPs, a.Unmap())
		}
	}
	return p
}

type namespaceObject struct {
	Metadata metadata `json:"metadata"`
}

func (o namespaceObject) meta() metadata { return o.Metadata }

func (o namespaceObject) namespace() Namespace {
	return Namespace{Name: o.Metadata.Name, Labels: o.Metadata.Labels}
}
