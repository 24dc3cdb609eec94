package controllers

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

// statefulSets keep pods with names that stay: NAME-0, NAME-1, …
func (c *Controllers) statefulSets() error {
	var failed []error
	for _, s := range store.List[*appsv1.StatefulSet](c.Store, "") {
		if s.DeletionTimestamp == nil {
			if err := c.statefulSet(s); err != nil {
				failed = append(failed, fmt.Errorf("%s/%s: %w", s.Namespace, s.Name, err))
			}
		}
	}
	return errors.Join(failed...)
}

func (c *Controllers) statefulSet(s *appsv1.StatefulSet) error {
	hash, err := hashOf(s.Spec.Template)
	if err != nil {
		return err
	}
	pods := map[int]*corev1.Pod{}
	for _, p := range c.owned(s.Namespace, s.UID) {
		if n, err := strconv.Atoi(p.Labels[appsv1.PodIndexLabel]); err == nil {
			pods[n] = p
		}
	}
	first := 0
	if s.Spec.Ordinals != nil {
		first = int(s.Spec.Ordinals.Start)
	}
	step := nextOfStatefulSet(s, pods, first, hash)
	var failed []error
	for _, n := range step.add {
		failed = append(failed, c.create(statefulPod(s, n, hash)))
	}
	for _, p := range step.remove {
		failed = append(failed, c.remove(p, nil))
	}
	status := statefulStatus(s, pods, hash)
	failed = append(failed, update(c, s, func(o *appsv1.StatefulSet) { o.Status = status }))
	return errors.Join(failed...)
}

// statefulStep is what to do next.
type statefulStep struct {
	add    []int
	remove []*corev1.Pod
}

// nextOfStatefulSet decides. In order means: a pod is made when all before it are ready, and taken away when all
// behind it are gone; an update goes from the last to the first and waits for each.
func nextOfStatefulSet(s *appsv1.StatefulSet, pods map[int]*corev1.Pod, first int, hash string) statefulStep {
	var step statefulStep
	end := first + int(*s.Spec.Replicas)
	inOrder := s.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
	whole := true // all so far are ready
	for n := first; n < end; n++ {
		p := pods[n]
		switch {
		case p == nil:
			step.add = append(step.add, n)
		case !active(p) && p.DeletionTimestamp == nil: // it has ended: another takes its place
			step.remove = append(step.remove, p)
		}
		if p == nil || !active(p) || !ready(p) {
			whole = false
			if inOrder {
				break
			}
		}
	}
	surplus := make([]int, 0, len(pods))
	for n := range pods {
		if n < first || n >= end {
			surplus = append(surplus, n)
		}
	}
	slices.Sort(surplus)
	slices.Reverse(surplus)
	if len(surplus) > 0 && (whole || !inOrder) {
		if inOrder {
			surplus = surplus[:1]
		}
		for _, n := range surplus {
			if pods[n].DeletionTimestamp == nil {
				step.remove = append(step.remove, pods[n])
			}
		}
		return step
	}
	if s.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return step
	}
	partition := first
	if r := s.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		partition = max(first, int(*r.Partition))
	}
	for n := end - 1; n >= partition; n-- {
		p := pods[n]
		if p == nil || p.DeletionTimestamp != nil {
			break
		}
		if p.Labels[appsv1.ControllerRevisionHashLabelKey] != hash {
			if !slices.Contains(step.remove, p) {
				step.remove = append(step.remove, p)
			}
			break
		}
		if !ready(p) {
			break
		}
	}
	return step
}

// statefulPod makes the pod of an ordinal, of the present template. Kubernetes would make one below an update's
// partition of the template before, which is not kept here.
func statefulPod(s *appsv1.StatefulSet, n int, hash string) *corev1.Pod {
	name := fmt.Sprintf("%s-%d", s.Name, n)
	p := newPod(s, s.Spec.Template, map[string]string{
		appsv1.StatefulSetPodNameLabel: name, appsv1.PodIndexLabel: strconv.Itoa(n), appsv1.ControllerRevisionHashLabelKey: hash,
	})
	p.GenerateName, p.Name = "", name
	p.Spec.Hostname, p.Spec.Subdomain = name, s.Spec.ServiceName
	for _, claim := range s.Spec.VolumeClaimTemplates {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name + "-" + name},
		}})
	}
	return p
}

func statefulStatus(s *appsv1.StatefulSet, pods map[int]*corev1.Pod, hash string) appsv1.StatefulSetStatus {
	out := appsv1.StatefulSetStatus{
		ObservedGeneration: s.Generation, UpdateRevision: s.Name + "-" + hash, CurrentRevision: s.Status.CurrentRevision,
		Conditions: s.Status.Conditions, CollisionCount: s.Status.CollisionCount,
	}
	for _, p := range pods {
		if !active(p) {
			continue
		}
		out.Replicas++
		if ready(p) {
			out.ReadyReplicas++
			out.AvailableReplicas++
		}
		if p.Labels[appsv1.ControllerRevisionHashLabelKey] == hash {
			out.UpdatedReplicas++
		} else {
			out.CurrentReplicas++
		}
	}
	if out.CurrentRevision == "" || out.CurrentReplicas == 0 && out.ReadyReplicas == *s.Spec.Replicas {
		out.CurrentRevision = out.UpdateRevision
	}
	if out.CurrentRevision == out.UpdateRevision {
		out.CurrentReplicas = out.UpdatedReplicas
	}
	return out
}
