package controllers

import (
	"errors"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

// replicaSets keeps as many pods as each asks for.
func (c *Controllers) replicaSets() error {
	var failed []error
	for _, rs := range store.List[*appsv1.ReplicaSet](c.Store, "") {
		failed = append(failed, c.replicaSet(rs))
	}
	return errors.Join(failed...)
}

func (c *Controllers) replicaSet(rs *appsv1.ReplicaSet) error {
	var failed []error
	var pods []*corev1.Pod
	for _, p := range c.owned(rs.Namespace, rs.UID) {
		switch {
		case active(p):
			pods = append(pods, p)
		case p.DeletionTimestamp == nil: // it has ended: another takes its place
			failed = append(failed, c.remove(p, nil))
		}
	}
	want := int(*rs.Spec.Replicas)
	if rs.DeletionTimestamp != nil {
		want = 0
	}
	for range want - len(pods) {
		failed = append(failed, c.create(newPod(rs, rs.Spec.Template, nil)))
	}
	if surplus := len(pods) - want; surplus > 0 {
		slices.SortFunc(pods, worstFirst)
		for _, p := range pods[:surplus] {
			failed = append(failed, c.remove(p, nil))
		}
		pods = pods[surplus:]
	}
	status := appsv1.ReplicaSetStatus{Replicas: int32(len(pods)), ObservedGeneration: rs.Generation, Conditions: rs.Status.Conditions}
	template := labels.SelectorFromSet(rs.Spec.Template.Labels)
	for _, p := range pods {
		if ready(p) {
			status.ReadyReplicas++
			status.AvailableReplicas++
		}
		if template.Matches(labels.Set(p.Labels)) {
			status.FullyLabeledReplicas++
		}
	}
	failed = append(failed, update(c, rs, func(o *appsv1.ReplicaSet) { o.Status = status }))
	return errors.Join(failed...)
}

// worstFirst orders pods by how little is lost with them: not on a node, not ready, young.
func worstFirst(a, b *corev1.Pod) int {
	rank := func(p *corev1.Pod) int {
		switch {
		case p.Spec.NodeName == "":
			return 0
		case !ready(p):
			return 1
		}
		return 2
	}
	if d := rank(a) - rank(b); d != 0 {
		return d
	}
	return b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
}
