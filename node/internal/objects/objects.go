// Package objects is what of pods and namespaces decides about their place in the mesh, read from the API's JSON.
package objects

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/mesh"
)

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

// Is reports whether the runtime means this very pod by a UID, "" if it did not say. It knows a pod of a file on the node by
// the hash of that file, and the API only the pod's mirror.
func (p Pod) Is(uid string) bool {
	return uid == "" || p.UID == uid || p.Annotations[mirror] == uid
}

// RuntimeUID is that by which runtime and kubelet know the pod, and its cgroup is named.
func (p Pod) RuntimeUID() string {
	if hash := p.Annotations[mirror]; hash != "" {
		return hash
	}
	return p.UID
}

// Finished reports whether none of the pod's processes will run again.
func (p Pod) Finished() bool { return p.Phase == "Succeeded" || p.Phase == "Failed" }

// Namespace is what the agent needs of a namespace.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Meta is what objects have in common.
type Meta struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	UID             string            `json:"uid"`
	ResourceVersion string            `json:"resourceVersion"`
	Labels          map[string]string `json:"labels"`
	Annotations     map[string]string `json:"annotations"`
}

// PodJSON is a pod as the API writes it.
type PodJSON struct {
	Metadata Meta `json:"metadata"`
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

// Meta is common to all objects.
func (o PodJSON) Meta() Meta { return o.Metadata }

// Pod is what we need of it.
func (o PodJSON) Pod() Pod {
	p := Pod{
		Key: Key{o.Metadata.Namespace, o.Metadata.Name}, UID: o.Metadata.UID, ServiceAccount: o.Spec.ServiceAccountName,
		Labels: o.Metadata.Labels, Annotations: annotations(o.Metadata.Annotations), HostNetwork: o.Spec.HostNetwork, Phase: o.Status.Phase,
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
			p.IPs = append(p.IPs, a.Unmap().WithZone(""))
		}
	}
	return p
}

// mirror is the annotation by which the API names the file of a node that a pod is of. Only nodes can set it.
const mirror = "kubernetes.io/config.mirror"

// annotations keeps those that are read: others can be larger than all else that is known of a pod.
func annotations(all map[string]string) map[string]string {
	var kept map[string]string
	for _, name := range []string{
		mesh.AnnotationRedirection, mesh.AnnotationBypassInbound, mesh.AnnotationDNSCapture, mesh.AnnotationReroute, mesh.AnnotationSidecarStatus, mirror,
	} {
		if v, ok := all[name]; ok {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[name] = v
		}
	}
	return kept
}

// NamespaceJSON is a namespace as the API writes it.
type NamespaceJSON struct {
	Metadata Meta `json:"metadata"`
}

// Meta is common to all objects.
func (o NamespaceJSON) Meta() Meta { return o.Metadata }

// Namespace is what we need of it.
func (o NamespaceJSON) Namespace() Namespace {
	return Namespace{Name: o.Metadata.Name, Labels: o.Metadata.Labels}
}
