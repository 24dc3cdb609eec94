// Package controllers makes a local cluster become what its objects ask for, as Kubernetes' controllers do.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// Config of the controllers.
type Config struct {
	Store *store.Store
	// RootCA is the PEM that every namespace's kube-root-ca.crt holds.
	RootCA []byte
	// Services are where Services get their addresses from, a prefix of each family. Default: 10.96.0.0/16.
	Services []netip.Prefix
	Log      *slog.Logger
}

// Controllers reconcile everything whenever anything they read has changed. A local cluster is small, so one pass over
// all of it is simpler than queues, and a pass that changes nothing writes nothing.
type Controllers struct {
	Config
	due time.Time // when something is to be done though nothing changes; of the pass that runs
}

// New makes the controllers.
func New(c Config) *Controllers {
	if len(c.Services) == 0 {
		c.Services = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	}
	return &Controllers{Config: c}
}

// retryAfter is the pause after a pass that failed.
const retryAfter = 200 * time.Millisecond

// Run reconciles until ctx ends.
func (c *Controllers) Run(ctx context.Context) error {
	wake, stop := c.Store.Subscribe(
		store.KindFor[*corev1.Namespace](), store.KindFor[*corev1.Node](), store.KindFor[*corev1.Pod](), store.KindFor[*corev1.Service](),
		store.KindFor[*appsv1.Deployment](), store.KindFor[*appsv1.ReplicaSet](), store.KindFor[*appsv1.DaemonSet](),
		store.KindFor[*appsv1.StatefulSet](), store.KindFor[*batchv1.Job](),
		store.KindFor[*discoveryv1.EndpointSlice](), store.KindFor[*corev1.ServiceAccount](), store.KindFor[*corev1.ConfigMap]())
	defer stop()
	for {
		if err := c.Reconcile(); err != nil {
			c.Log.Warn("reconciliation incomplete, will retry", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retryAfter):
				continue
			}
		}
		var due <-chan time.Time
		if !c.due.IsZero() {
			due = time.After(time.Until(c.due))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-due:
		}
	}
}

// Reconcile makes one pass.
func (c *Controllers) Reconcile() error {
	c.due = time.Time{}
	var all []error
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"namespaces", c.namespaces},
		{"services", c.services},
		{"deployments", c.deployments},
		{"replica sets", c.replicaSets},
		{"daemon sets", c.daemonSets},
		{"stateful sets", c.statefulSets},
		{"jobs", c.jobs},
		{"scheduler", c.schedule},
		{"endpoints", c.endpoints},
		{"garbage", c.garbage},
	} {
		if err := step.run(); err != nil {
			all = append(all, fmt.Errorf("%s: %w", step.name, err))
		}
	}
	return errors.Join(all...)
}

// update changes an object. One that is gone meanwhile is no error: the next pass sees what is there.
func update[T kinds.Object](c *Controllers, o T, f func(T)) error {
	_, err := store.Update(c.Store, o.GetNamespace(), o.GetName(), func(o T) error { f(o); return nil })
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// create adds an object; one that is there meanwhile is no error.
func (c *Controllers) create(o kinds.Object) error {
	_, err := c.Store.Create(o)
	if errors.Is(err, store.ErrExists) {
		return nil
	}
	return err
}

// remove deletes an object by its identity. grace nil is the object's own.
func (c *Controllers) remove(o kinds.Object, grace *time.Duration) error {
	err := c.Store.Delete(kinds.Of(o), o.GetNamespace(), o.GetName(), store.DeleteOptions{Grace: grace, UID: o.GetUID()})
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

// owned are the pods that a controller's object has made.
func (c *Controllers) owned(namespace string, owner types.UID) []*corev1.Pod {
	var own []*corev1.Pod
	for _, p := range store.List[*corev1.Pod](c.Store, namespace) {
		if r := metav1.GetControllerOf(p); r != nil && r.UID == owner {
			own = append(own, p)
		}
	}
	return own
}

// active tells pods that count from those that end or have ended.
func active(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// newPod makes a pod of a template. Its name is the owner's with a suffix.
func newPod(owner kinds.Object, template corev1.PodTemplateSpec, extra map[string]string) *corev1.Pod {
	k := kinds.Of(owner)
	p := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: owner.GetName() + "-", Namespace: owner.GetNamespace(),
			Labels: map[string]string{}, Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{ownerOf(k, owner)},
		},
		Spec: *template.Spec.DeepCopy(),
	}
	for key, v := range template.Labels {
		p.Labels[key] = v
	}
	for key, v := range extra {
		p.Labels[key] = v
	}
	for key, v := range template.Annotations {
		p.Annotations[key] = v
	}
	return p
}

func ownerOf(k kinds.Kind, o kinds.Object) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: k.APIVersion(), Kind: k.Kind, Name: o.GetName(), UID: o.GetUID(), Controller: new(true), BlockOwnerDeletion: new(true),
	}
}

// hashOf names a pod template: another template gets another name.
func hashOf(t corev1.PodTemplateSpec) (string, error) {
	b, err := t.Marshal()
	if err != nil {
		return "", fmt.Errorf("pod template: %w", err)
	}
	h := fnv.New32a()
	h.Write(b)
	// The alphabet of Kubernetes' names for hashes: no vowels, nothing that is easily misread.
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	n := h.Sum32()
	out := make([]byte, 0, 9)
	for range 9 {
		out = append(out, letters[n%uint32(len(letters))])
		n = n/uint32(len(letters)) + n*2654435761>>7
	}
	return string(out), nil
}
