package controllers

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

const revisionAnnotation = "deployment.kubernetes.io/revision"

// deployments lead each from its old ReplicaSets to the one of its present template.
func (c *Controllers) deployments() error {
	var failed []error
	for _, d := range store.List[*appsv1.Deployment](c.Store, "") {
		if d.DeletionTimestamp == nil {
			if err := c.deployment(d); err != nil {
				failed = append(failed, fmt.Errorf("%s/%s: %w", d.Namespace, d.Name, err))
			}
		}
	}
	return errors.Join(failed...)
}

func (c *Controllers) deployment(d *appsv1.Deployment) error {
	hash, err := hashOf(d.Spec.Template)
	if err != nil {
		return err
	}
	var now *appsv1.ReplicaSet
	var old []*appsv1.ReplicaSet
	revision := 0
	for _, rs := range store.List[*appsv1.ReplicaSet](c.Store, d.Namespace) {
		if r := metav1.GetControllerOf(rs); r == nil || r.UID != d.UID {
			continue
		}
		n, _ := strconv.Atoi(rs.Annotations[revisionAnnotation]) // 0 where it is none
		revision = max(revision, n)
		if rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey] == hash {
			now = rs
		} else {
			old = append(old, rs)
		}
	}
	if now == nil {
		return c.create(newReplicaSet(d, hash, revision+1))
	}
	if !d.Spec.Paused {
		for _, s := range plan(d, now, old) {
			if err := update(c, s.rs, func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = &s.replicas }); err != nil {
				return err
			}
		}
	}
	if err := c.prune(d, old); err != nil {
		return err
	}
	return update(c, d, func(o *appsv1.Deployment) { o.Status = statusOf(d, now, old) })
}

func newReplicaSet(d *appsv1.Deployment, hash string, revision int) *appsv1.ReplicaSet {
	template := *d.Spec.Template.DeepCopy()
	selector := d.Spec.Selector.DeepCopy()
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	return &appsv1.ReplicaSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"},
		ObjectMeta: metav1.ObjectMeta{
			Name: d.Name + "-" + hash, Namespace: d.Namespace, Labels: template.Labels,
			Annotations:     map[string]string{revisionAnnotation: strconv.Itoa(revision)},
			OwnerReferences: []metav1.OwnerReference{ownerOf(store.KindFor[*appsv1.Deployment](), d)},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(0)), Selector: selector, Template: template},
	}
}

// scale is a new size of a ReplicaSet.
type scale struct {
	rs       *appsv1.ReplicaSet
	replicas int32
}

// plan decides the next sizes: never more pods than replicas and surge, never fewer available than the strategy allows.
func plan(d *appsv1.Deployment, now *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) []scale {
	want := *d.Spec.Replicas
	var out []scale
	oldSpec, oldHave, available := int32(0), int32(0), now.Status.AvailableReplicas
	for _, rs := range old {
		oldSpec += *rs.Spec.Replicas
		oldHave += max(rs.Status.Replicas, *rs.Spec.Replicas)
		available += rs.Status.AvailableReplicas
	}
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		for _, rs := range old {
			if *rs.Spec.Replicas > 0 {
				out = append(out, scale{rs, 0})
			}
		}
		if oldHave == 0 && *now.Spec.Replicas != want {
			out = append(out, scale{now, want})
		}
		return out
	}
	surge, unavailable := bounds(d, want)
	if next := min(want, want+surge-oldSpec); *now.Spec.Replicas > want || next > *now.Spec.Replicas {
		out = append(out, scale{now, max(next, 0)})
	}
	// Old pods that are not available are no loss; of the others, as many as the strategy can do without.
	spare := available - (want - unavailable)
	slices.SortFunc(old, compareNames)
	for _, rs := range old {
		have := *rs.Spec.Replicas
		broken := max(have-rs.Status.AvailableReplicas, 0)
		cut := broken + min(max(spare, 0), have-broken)
		if cut > 0 {
			spare -= cut - broken
			out = append(out, scale{rs, have - cut})
		}
	}
	return out
}

// bounds reads maxSurge and maxUnavailable; both zero would never move, so then one may be unavailable.
func bounds(d *appsv1.Deployment, want int32) (surge, unavailable int32) {
	r := d.Spec.Strategy.RollingUpdate
	if r == nil {
		return 1, 0
	}
	value := func(v *intstr.IntOrString, up bool) int32 {
		if v == nil {
			return 0
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(v, int(want), up)
		if err != nil {
			return 0
		}
		return int32(n)
	}
	surge, unavailable = value(r.MaxSurge, true), value(r.MaxUnavailable, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

// prune forgets the oldest empty ReplicaSets beyond the history that the Deployment keeps.
func (c *Controllers) prune(d *appsv1.Deployment, old []*appsv1.ReplicaSet) error {
	var empty []*appsv1.ReplicaSet
	for _, rs := range old {
		if *rs.Spec.Replicas == 0 && rs.Status.Replicas == 0 {
			empty = append(empty, rs)
		}
	}
	slices.SortFunc(empty, func(a, b *appsv1.ReplicaSet) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	var failed []error
	for len(empty) > int(*d.Spec.RevisionHistoryLimit) {
		failed = append(failed, c.remove(empty[0], nil))
		empty = empty[1:]
	}
	return errors.Join(failed...)
}

func statusOf(d *appsv1.Deployment, now *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) appsv1.DeploymentStatus {
	s := appsv1.DeploymentStatus{ObservedGeneration: d.Generation, UpdatedReplicas: now.Status.Replicas, Conditions: slices.Clone(d.Status.Conditions)}
	for _, rs := range append([]*appsv1.ReplicaSet{now}, old...) {
		s.Replicas += rs.Status.Replicas
		s.ReadyReplicas += rs.Status.ReadyReplicas
		s.AvailableReplicas += rs.Status.AvailableReplicas
	}
	want := *d.Spec.Replicas
	s.UnavailableReplicas = max(want-s.AvailableReplicas, 0)
	_, unavailable := bounds(d, want)
	set := func(kind appsv1.DeploymentConditionType, ok bool, yes, no, text string) {
		c := appsv1.DeploymentCondition{Type: kind, Status: corev1.ConditionTrue, Reason: yes, Message: text}
		if !ok {
			c.Status, c.Reason = corev1.ConditionFalse, no
		}
		for i, have := range s.Conditions {
			if have.Type != kind {
				continue
			}
			if have.Status != c.Status || have.Reason != c.Reason {
				c.LastTransitionTime, c.LastUpdateTime = metav1.Now(), metav1.Now()
				s.Conditions[i] = c
			}
			return
		}
		c.LastTransitionTime, c.LastUpdateTime = metav1.Now(), metav1.Now()
		s.Conditions = append(s.Conditions, c)
	}
	enough := s.AvailableReplicas >= want-unavailable
	set(appsv1.DeploymentAvailable, enough, "MinimumReplicasAvailable", "MinimumReplicasUnavailable", "Deployment availability by its strategy's minimum.")
	whole := s.UpdatedReplicas == want && s.AvailableReplicas >= want && s.Replicas == want
	progress := "ReplicaSetUpdated"
	if whole {
		progress = "NewReplicaSetAvailable"
	}
	set(appsv1.DeploymentProgressing, true, progress, "", "ReplicaSet \""+now.Name+"\".")
	return s
}
