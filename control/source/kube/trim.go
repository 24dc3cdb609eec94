package kube

import (
	"slices"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// trimHistory removes what is about an object's history, not about the object.
func trimHistory(o metav1.Object) {
	o.SetManagedFields(nil)
	o.SetResourceVersion("")
	o.SetSelfLink("")
	o.SetFinalizers(nil)
	if a := o.GetAnnotations(); len(a) > 0 {
		delete(a, corev1.LastAppliedConfigAnnotation)
		o.SetAnnotations(a)
	}
}

// trimMeta removes an object's history too, and keeps in memory once what many say alike.
func trimMeta(o kinds.Object) {
	trimHistory(o)
	o.SetNamespace(one(o.GetNamespace()))
	o.SetLabels(shared(o.GetLabels()))
}

// one is s, in memory once for all who say the same.
func one(s string) string { return unique.Make(s).Value() }

func shared(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[one(k)] = one(v)
	}
	return out
}

func trimNothing(kinds.Object) {}

func trimNamespace(o kinds.Object) {
	if n, ok := o.(*corev1.Namespace); ok {
		n.Spec, n.Status = corev1.NamespaceSpec{}, corev1.NamespaceStatus{}
	}
}

// trimNode leaves a node its labels: where it is.
func trimNode(o kinds.Object) {
	if n, ok := o.(*corev1.Node); ok {
		n.Annotations, n.Spec, n.Status = nil, corev1.NodeSpec{}, corev1.NodeStatus{}
	}
}

func trimService(o kinds.Object) {
	if s, ok := o.(*corev1.Service); ok {
		s.Status.Conditions = nil // our own, among others
		s.Spec.Selector = shared(s.Spec.Selector)
	}
}

// trimPod leaves a pod where it is, who it is, what it is part of, its named ports and whether it is ready. The rest is by
// far the most of it.
func trimPod(o kinds.Object) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return
	}
	p.OwnerReferences = slices.DeleteFunc(p.OwnerReferences, func(r metav1.OwnerReference) bool { return r.Controller == nil || !*r.Controller })
	p.Spec = corev1.PodSpec{
		NodeName: one(p.Spec.NodeName), ServiceAccountName: one(p.Spec.ServiceAccountName), HostNetwork: p.Spec.HostNetwork,
		Containers: ports(p.Spec.Containers), InitContainers: ports(p.Spec.InitContainers),
	}
	var ready []corev1.PodCondition
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			ready = append(ready, corev1.PodCondition{Type: corev1.PodReady, Status: c.Status})
		}
	}
	p.Status = corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs, Conditions: ready}
}

// ports are the containers that name ports, without all else.
func ports(all []corev1.Container) (out []corev1.Container) {
	for _, c := range all {
		if slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name != "" }) {
			out = append(out, corev1.Container{Ports: c.Ports, RestartPolicy: c.RestartPolicy})
		}
	}
	return out
}

// certificateKeys are the entries of a Secret that a gateway or the certificate authority is made of. Those of other
// Secrets do not stay in memory.
func certificateKeys() []string {
	return []string{
		"tls.crt", "tls.key", "ca.crt", "ca.crl", "tls.ocsp-staple", "cert", "key", "cacert", "crl",
		"ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem",
	}
}

func trimSecret(o kinds.Object) {
	s, ok := o.(*corev1.Secret)
	if !ok || strings.HasPrefix(string(s.Type), "ambit.io/") { // those are our own
		return
	}
	keys := certificateKeys()
	for name := range s.Data {
		if !slices.Contains(keys, name) {
			delete(s.Data, name)
		}
	}
}
