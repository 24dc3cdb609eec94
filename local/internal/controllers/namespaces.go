package controllers

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// namespaces gives each its default ServiceAccount and the API server's root, and empties those that are deleted.
func (c *Controllers) namespaces() error {
	var all []error
	for _, ns := range store.List[*corev1.Namespace](c.Store, "") {
		if ns.DeletionTimestamp != nil {
			all = append(all, c.empty(ns))
			continue
		}
		if _, err := store.Get[*corev1.ServiceAccount](c.Store, ns.Name, "default"); errors.Is(err, store.ErrNotFound) {
			all = append(all, c.create(&corev1.ServiceAccount{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: ns.Name},
			}))
		}
		all = append(all, c.rootCA(ns.Name))
	}
	return errors.Join(all...)
}

func (c *Controllers) rootCA(namespace string) error {
	const name = "kube-root-ca.crt"
	data := map[string]string{"ca.crt": string(c.RootCA)}
	have, err := store.Get[*corev1.ConfigMap](c.Store, namespace, name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return c.create(&corev1.ConfigMap{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: data,
		})
	case err != nil:
		return err
	case have.Data["ca.crt"] != data["ca.crt"]: // of the cluster before a restart
		return update(c, have, func(o *corev1.ConfigMap) { o.Data = data })
	}
	return nil
}

// empty deletes what is in a namespace, and then the namespace.
func (c *Controllers) empty(ns *corev1.Namespace) error {
	var all []error
	left := 0
	for _, k := range kinds.All() {
		if !k.Namespaced {
			continue
		}
		for _, o := range c.Store.List(k, ns.Name) {
			left++
			if o.GetDeletionTimestamp() == nil {
				all = append(all, c.remove(o, nil))
			}
		}
	}
	if left == 0 {
		all = append(all, c.remove(ns, new(time.Duration)))
	}
	return errors.Join(all...)
}
