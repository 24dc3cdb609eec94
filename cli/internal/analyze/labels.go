package analyze

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// podLabels are those of a pod, or of the pods that a workload makes.
func podLabels(o kinds.Object) (map[string]string, bool) {
	switch x := o.(type) {
	case *corev1.Pod:
		return x.Labels, true
	case *appsv1.Deployment:
		return x.Spec.Template.Labels, true
	case *appsv1.DaemonSet:
		return x.Spec.Template.Labels, true
	case *appsv1.StatefulSet:
		return x.Spec.Template.Labels, true
	}
	return nil, false
}

func within(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

func text(labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, fmt.Sprintf("%s=%s", k, labels[k]))
	}
	return strings.Join(all, ",")
}

// fqdn completes a short name of a service.
func fqdn(host, namespace string) string {
	switch strings.Count(host, ".") {
	case 0:
		return host + "." + namespace + ".svc." + mesh.ClusterDomain
	case 1:
		return host + ".svc." + mesh.ClusterDomain
	}
	if strings.HasSuffix(host, ".svc") {
		return host + "." + mesh.ClusterDomain
	}
	return host
}
