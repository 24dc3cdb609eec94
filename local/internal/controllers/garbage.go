package controllers

import (
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// maxEvents is how many events a cluster remembers.
const maxEvents = 500

// garbage removes what nobody owns any more: objects whose owner is gone, pods of nodes that are gone, old events.
func (c *Controllers) garbage() error {
	alive := map[types.UID]bool{}
	for _, k := range kinds.All() {
		for _, o := range c.Store.List(k, "") {
			alive[o.GetUID()] = true
		}
	}
	var failed []error
	for _, k := range kinds.All() {
		for _, o := range c.Store.List(k, "") {
			if r := metav1.GetControllerOf(o); r != nil && !alive[r.UID] && o.GetDeletionTimestamp() == nil {
				failed = append(failed, c.remove(o, nil))
			}
		}
	}
	nodes := map[string]bool{}
	for _, n := range store.List[*corev1.Node](c.Store, "") {
		nodes[n.Name] = true
	}
	for _, p := range store.List[*corev1.Pod](c.Store, "") {
		if p.Spec.NodeName != "" && !nodes[p.Spec.NodeName] && len(nodes) > 0 {
			failed = append(failed, c.remove(p, new(time.Duration)))
		}
	}
	events := store.List[*corev1.Event](c.Store, "")
	if surplus := len(events) - maxEvents; surplus > 0 {
		slices.SortFunc(events, func(a, b *corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
		for _, e := range events[:surplus] {
			failed = append(failed, c.remove(e, nil))
		}
	}
	return errors.Join(failed...)
}
