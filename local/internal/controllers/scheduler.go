package controllers

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

func isControlPlane(n *corev1.Node) bool {
	_, ok := n.Labels[controlPlaneLabel]
	return ok
}

func compareNames[T kinds.Object](a, b T) int { return strings.Compare(a.GetName(), b.GetName()) }

// fits tells whether a node may run a pod of this shape, and if not, why.
func fits(n *corev1.Node, spec *corev1.PodSpec) (bool, string) {
	if spec.NodeName != "" && spec.NodeName != n.Name {
		return false, "the pod names another node"
	}
	for k, v := range spec.NodeSelector {
		if got, ok := n.Labels[k]; !ok || got != v {
			return false, "it lacks the label " + k + "=" + v
		}
	}
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectPreferNoSchedule {
			continue
		}
		if !slices.ContainsFunc(spec.Tolerations, func(o corev1.Toleration) bool { return tolerates(o, t) }) {
			return false, "the pod does not tolerate its taint " + t.Key
		}
	}
	return true, ""
}

func tolerates(o corev1.Toleration, t corev1.Taint) bool {
	if o.Effect != "" && o.Effect != t.Effect || o.Key != "" && o.Key != t.Key {
		return false
	}
	switch o.Operator {
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpEqual, "":
		return o.Key == t.Key && o.Value == t.Value
	}
	return false
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue && !n.Spec.Unschedulable
		}
	}
	return false
}

// schedule gives each pod that has none a node: of those that fit, the one with the fewest pods of its owner, then with
// the fewest pods at all.
func (c *Controllers) schedule() error {
	nodes := store.List[*corev1.Node](c.Store, "")
	slices.SortFunc(nodes, compareNames)
	pods := store.List[*corev1.Pod](c.Store, "")
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		if d := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); d != 0 {
			return d
		}
		return compareNames(a, b)
	})
	total, ofOwner := map[string]int{}, map[string]map[types.UID]int{}
	count := func(node string, p *corev1.Pod) {
		total[node]++
		if ofOwner[node] == nil {
			ofOwner[node] = map[types.UID]int{}
		}
		if r := metav1.GetControllerOf(p); r != nil {
			ofOwner[node][r.UID]++
		}
	}
	for _, p := range pods {
		if p.Spec.NodeName != "" && active(p) {
			count(p.Spec.NodeName, p)
		}
	}
	var failed []error
	for _, p := range pods {
		if p.Spec.NodeName != "" || !active(p) {
			continue
		}
		var owner types.UID
		if r := metav1.GetControllerOf(p); r != nil {
			owner = r.UID
		}
		best, why := "", []string{}
		for _, n := range nodes {
			if ok, reason := fits(n, &p.Spec); !ok {
				why = append(why, n.Name+": "+reason)
				continue
			}
			if !nodeReady(n) {
				why = append(why, n.Name+": it is not ready")
				continue
			}
			if best == "" || ofOwner[n.Name][owner] < ofOwner[best][owner] ||
				ofOwner[n.Name][owner] == ofOwner[best][owner] && total[n.Name] < total[best] {
				best = n.Name
			}
		}
		failed = append(failed, update(c, p, func(p *corev1.Pod) { bind(p, best, why) }))
		if best != "" {
			count(best, p)
		}
	}
	return errors.Join(failed...)
}

// bind writes the decision into a pod: a node, or why there is none.
func bind(p *corev1.Pod, node string, why []string) {
	cond := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}
	if p.Spec.NodeName = node; node == "" {
		cond.Status, cond.Reason = corev1.ConditionFalse, corev1.PodReasonUnschedulable
		cond.Message = fmt.Sprintf("0/%d nodes are available: %s", len(why), strings.Join(why, "; "))
	}
	for i, c := range p.Status.Conditions {
		if c.Type != corev1.PodScheduled {
			continue
		}
		if c.Status != cond.Status || c.Message != cond.Message {
			p.Status.Conditions[i] = cond
		}
		return
	}
	p.Status.Conditions = append(p.Status.Conditions, cond)
}
