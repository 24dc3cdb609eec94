package controllers

import (
	"errors"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

// daemonSets keep one pod of each on every node that fits.
func (c *Controllers) daemonSets() error {
	nodes := store.List[*corev1.Node](c.Store, "")
	slices.SortFunc(nodes, compareNames)
	var failed []error
	for _, d := range store.List[*appsv1.DaemonSet](c.Store, "") {
		if d.DeletionTimestamp == nil {
			failed = append(failed, c.daemonSet(d, nodes))
		}
	}
	return errors.Join(failed...)
}

// onNodes are a DaemonSet's pods of one node: those of the present template, and older ones.
type onNodes struct{ now, old []*corev1.Pod }

func (c *Controllers) daemonSet(d *appsv1.DaemonSet, nodes []*corev1.Node) error {
	hash, err := hashOf(d.Spec.Template)
	if err != nil {
		return err
	}
	pods := map[string]*onNodes{}
	var failed []error
	for _, p := range c.owned(d.Namespace, d.UID) {
		if !active(p) {
			if p.DeletionTimestamp == nil {
				failed = append(failed, c.remove(p, nil))
			}
			continue
		}
		at := pods[p.Spec.NodeName]
		if at == nil {
			at = &onNodes{}
			pods[p.Spec.NodeName] = at
		}
		if p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == hash {
			at.now = append(at.now, p)
		} else {
			at.old = append(at.old, p)
		}
	}
	s := appsv1.DaemonSetStatus{ObservedGeneration: d.Generation}
	surge, budget := c.budget(d, nodes, pods)
	for _, n := range nodes {
		at := pods[n.Name]
		if at == nil {
			at = &onNodes{}
		}
		if ok, _ := fits(n, &d.Spec.Template.Spec); !ok {
			for _, p := range slices.Concat(at.now, at.old) {
				s.NumberMisscheduled++
				failed = append(failed, c.remove(p, nil))
			}
			continue
		}
		s.DesiredNumberScheduled++
		failed = append(failed, c.onNode(d, n, hash, at, surge, &budget))
		count(&s, at)
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	failed = append(failed, update(c, d, func(o *appsv1.DaemonSet) { o.Status = s }))
	return errors.Join(failed...)
}

func count(s *appsv1.DaemonSetStatus, at *onNodes) {
	all := slices.Concat(at.now, at.old)
	if len(all) > 0 {
		s.CurrentNumberScheduled++
	}
	// A node counts as updated once its old pod is gone, as on Kubernetes: then what is ready is the new one.
	if len(at.now) > 0 && len(at.old) == 0 {
		s.UpdatedNumberScheduled++
	}
	if slices.ContainsFunc(all, ready) {
		s.NumberReady++
		s.NumberAvailable++
	}
}

// budget tells whether new pods come beside the old ones (surge), and on how many more nodes that may begin now, or on
// how many the old pod may be taken away.
func (c *Controllers) budget(d *appsv1.DaemonSet, nodes []*corev1.Node, pods map[string]*onNodes) (surge bool, left int) {
	r := d.Spec.UpdateStrategy.RollingUpdate
	if d.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || r == nil {
		return false, 0
	}
	value := func(v *intstr.IntOrString) int {
		if v == nil {
			return 0
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(v, len(nodes), true)
		if err != nil {
			return 0
		}
		return n
	}
	if n := value(r.MaxSurge); n > 0 {
		for _, at := range pods {
			if len(at.now) > 0 && len(at.old) > 0 {
				n--
			}
		}
		return true, n
	}
	left = max(value(r.MaxUnavailable), 1)
	for _, n := range nodes {
		if ok, _ := fits(n, &d.Spec.Template.Spec); ok && (pods[n.Name] == nil || !slices.ContainsFunc(slices.Concat(pods[n.Name].now, pods[n.Name].old), ready)) {
			left--
		}
	}
	return false, left
}

// onNode makes the next step on one node.
func (c *Controllers) onNode(d *appsv1.DaemonSet, n *corev1.Node, hash string, at *onNodes, surge bool, budget *int) error {
	add := func() error {
		p := newPod(d, d.Spec.Template, map[string]string{appsv1.DefaultDaemonSetUniqueLabelKey: hash})
		p.Spec.NodeName = n.Name
		return c.create(p)
	}
	var failed []error
	for i, p := range at.now { // more than one is a leftover of an interrupted pass
		if i > 0 {
			failed = append(failed, c.remove(p, nil))
		}
	}
	switch {
	case len(at.now) == 0 && len(at.old) == 0:
		failed = append(failed, add())
	case len(at.now) > 0:
		if ready(at.now[0]) {
			for _, p := range at.old {
				failed = append(failed, c.remove(p, nil))
			}
		}
	case surge:
		if *budget > 0 {
			*budget--
			failed = append(failed, add())
		}
	case d.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType:
		if broken := !ready(at.old[0]); broken || *budget > 0 {
			if !broken {
				*budget--
			}
			failed = append(failed, c.remove(at.old[0], nil))
		}
	}
	return errors.Join(failed...)
}
