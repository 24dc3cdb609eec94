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

// parts looks whether the mesh itself runs, where a live cluster has pods in it.
func parts(a *analysis) {
	if !a.live {
		return
	}
	inMesh := map[string]int{} // pods by node
	for _, p := range a.pods {
		if p.running != nil && p.running.Status.Phase == corev1.PodRunning && p.running.DeletionTimestamp == nil && p.annotations[mesh.AnnotationRedirection] == mesh.RedirectionEnabled {
			inMesh[p.spec.NodeName]++
		}
	}
	if len(inMesh) == 0 {
		return
	}
	each(a, func(l kinds.Located, d *appsv1.Deployment) {
		if d.Namespace == mesh.SystemNamespace && d.Spec.Template.Labels["app"] == "istiod" && len(a.readyOn("app", "istiod")) == 0 {
			a.everywhere(l, finding{
				Error, "AMB0011", "status", "No control plane is ready: what is changed, policies too, reaches no proxy, and new pods get no certificates. What was in force stays.",
				fmt.Sprintf("kubectl describe deployment -n %s %s says why", d.Namespace, d.Name),
			})
		}
	})
	each(a, func(l kinds.Located, d *appsv1.DaemonSet) {
		if d.Namespace != mesh.SystemNamespace {
			return
		}
		see := fmt.Sprintf("kubectl get pods -n %s -o wide, and kubectl describe the one of that node", d.Namespace)
		switch {
		case d.Spec.Template.Labels["app"] == "ztunnel":
			if nodes, pods := a.without("app", "ztunnel", inMesh); len(nodes) > 0 {
				a.everywhere(l, finding{Error, "AMB0012", "status", fmt.Sprintf("No ztunnel is ready on %s: pods of the mesh there (%d) can neither open nor take connections.", strings.Join(nodes, ", "), pods), see})
			}
		case d.Spec.Template.Labels["k8s-app"] == "istio-cni-node":
			if nodes, _ := a.without("k8s-app", "istio-cni-node", inMesh); len(nodes) > 0 {
				a.everywhere(l, finding{Warning, "AMB0013", "status", fmt.Sprintf("No node agent is ready on %s: new pods of the mesh wait there, and labels have no effect on those that run.", strings.Join(nodes, ", ")), see})
			}
		}
	})
}

// everywhere adds a finding that concerns whoever looks, at whatever namespace.
func (a *analysis) everywhere(l kinds.Located, f finding) {
	n := len(a.found)
	a.add(l, f)
	for i := n; i < len(a.found); i++ {
		a.found[i].namespace = ""
	}
}

// readyOn names the nodes on which a pod of the mesh with a label is ready.
func (a *analysis) readyOn(label, value string) map[string]bool {
	on := map[string]bool{}
	for _, p := range a.selected(map[string]string{label: value}, mesh.SystemNamespace) {
		if p.running != nil && slices.ContainsFunc(p.running.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			on[p.spec.NodeName] = true
		}
	}
	return on
}

// without names the nodes with pods of the mesh on which none with a label is ready, and counts those pods.
func (a *analysis) without(label, value string, inMesh map[string]int) (nodes []string, pods int) {
	on := a.readyOn(label, value)
	for _, node := range slices.Sorted(maps.Keys(inMesh)) {
		if !on[node] {
			nodes = append(nodes, node)
			pods += inMesh[node]
		}
	}
	return nodes, pods
}
