package install

import (
	"context"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Removal is what an uninstallation will take away.
type Removal struct {
	// Objects in the order in which they go.
	Objects []Object
	// Definitions are ours, with how many objects go with them; only with purge.
	Definitions []Definition
	// Namespaces are those that the installer made.
	Namespaces []string
	revision   string
	last       bool
}

// Definition is a custom resource definition and how many objects there are of it.
type Definition struct {
	Name    string
	Objects int
	object  Object
}

// Removal finds what is ours: of one revision, or of all with purge.
func (i *Installer) Removal(ctx context.Context, revision string, purge bool) (*Removal, error) {
	r := &Removal{revision: revision}
	selector := labelManaged + "=" + manager
	others := false
	for _, k := range slices.Backward(installable()) {
		items, err := i.Cluster.list(ctx, k, "", selector)
		if err != nil {
			return nil, err
		}
		for _, o := range items {
			rev := o.GetLabels()[labelRevision]
			switch {
			case k.name == "Namespace":
				r.Namespaces = append(r.Namespaces, o.GetName())
			case k.name == "CustomResourceDefinition":
				if purge {
					d, err := i.definition(ctx, o)
					if err != nil {
						return nil, err
					}
					r.Definitions = append(r.Definitions, d)
				}
			case revision == "" || purge || rev == revision:
				r.Objects = append(r.Objects, o)
			default:
				others = true
			}
		}
	}
	r.last = !others
	if !r.last {
		r.Namespaces = nil
	}
	slices.SortStableFunc(r.Objects, func(a, b Object) int { return leaves(&a) - leaves(&b) })
	return r, nil
}

// leaves is the order in which things go: what judges new objects, then what captures traffic, and only then what carries it; last
// the rights, which the node agents need to take themselves out.
func leaves(o *Object) int {
	switch k := o.GetKind(); {
	case k == "ValidatingWebhookConfiguration":
		return 0
	case k == "DaemonSet" && o.GetLabels()[labelComponent] == "Cni":
		return 1
	case k == "HorizontalPodAutoscaler":
		return 2
	case k == "DaemonSet", k == "Deployment":
		return 3
	}
	return 4
}

func (i *Installer) definition(ctx context.Context, o Object) (Definition, error) {
	d := Definition{Name: o.GetName(), object: o}
	group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(o.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(o.Object, "spec", "versions")
	for _, v := range versions {
		m, _ := v.(map[string]any)
		if served, _ := m["served"].(bool); !served {
			continue
		}
		items, err := i.Cluster.list(ctx, kind{group: group, version: nameOf(m), plural: plural}, "", "")
		if err != nil {
			return d, err
		}
		d.Objects = len(items)
		break
	}
	return d, nil
}

// Uninstall takes away what was found.
func (i *Installer) Uninstall(ctx context.Context, r *Removal) error {
	for n := range r.Objects {
		o := &r.Objects[n]
		if err := i.remove(ctx, o); err != nil {
			return err
		}
		if o.GetKind() == "DaemonSet" || o.GetKind() == "Deployment" {
			if err := i.gone(ctx, o); err != nil {
				return err
			}
		}
	}
	for _, d := range r.Definitions {
		if err := i.remove(ctx, &d.object); err != nil {
			return err
		}
	}
	if !r.last {
		return nil
	}
	if err := i.leftovers(ctx, r.Namespaces); err != nil {
		return err
	}
	for _, ns := range r.Namespaces {
		if err := i.removeNamespace(ctx, ns); err != nil {
			return err
		}
	}
	return nil
}

// gone waits until the pods of a workload have ended: of the node agents, until they are out of their nodes.
func (i *Installer) gone(ctx context.Context, o *Object) error {
	labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
	selector := metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labels})
	var pods []Object
	most := 0
	err := i.poll(ctx, func() (done bool, err error) {
		if pods, err = i.Cluster.list(ctx, podKind(), o.GetNamespace(), selector); err != nil || len(pods) == 0 {
			return true, err
		}
		most = max(most, len(pods))
		i.Report.Waiting("removing", most-len(pods), most, describe(o))
		return false, nil
	})
	if !errors.Is(err, errLate) {
		return err
	}
	var names []string
	for _, p := range pods {
		node, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName")
		names = append(names, p.GetName()+" on "+node)
	}
	return fmt.Errorf("%s is deleted, but its pods have not ended after %s: %v. If their nodes are gone for good, delete the nodes and uninstall again", describe(o), i.within(), names)
}

// leftovers are what the control plane wrote: root certificates in every namespace, its authority, its leases.
func (i *Installer) leftovers(ctx context.Context, namespaces []string) error {
	configMap, secret := kind{"", "v1", "ConfigMap", "configmaps", false}, kind{"", "v1", "Secret", "secrets", false}
	all, err := i.Cluster.any.Resource(configMap.resource()).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=istio-ca-root-cert"})
	if err != nil {
		return fmt.Errorf("list root certificates: %w", err)
	}
	var errs []error
	drop := func(k kind, o *Object) {
		background := metav1.DeletePropagationBackground
		if err := i.Cluster.of(k, o.GetNamespace()).Delete(ctx, o.GetName(), metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", describe(o), err))
		}
	}
	for n := range all.Items {
		drop(configMap, &all.Items[n])
	}
	for _, ns := range namespaces {
		o, err := i.Cluster.get(ctx, secret, ns, "istio-ca-secret")
		if err != nil {
			errs = append(errs, err)
		}
		if o != nil {
			drop(secret, o)
		}
	}
	return errors.Join(errs...)
}

// removeNamespace removes a namespace that the installer made, unless somebody keeps something in it.
func (i *Installer) removeNamespace(ctx context.Context, ns string) error {
	for _, k := range []kind{podKind(), {"apps", "v1", "Deployment", "deployments", false}, {"", "v1", "Secret", "secrets", false}, {"", "v1", "Service", "services", false}} {
		items, err := i.Cluster.list(ctx, k, ns, "")
		if err != nil {
			return err
		}
		for _, o := range items {
			if o.GetDeletionTimestamp() == nil {
				i.Report.Note(fmt.Sprintf("namespace %s stays: it has %s, which is not ours", ns, describe(&o)))
				return nil
			}
		}
	}
	o, err := i.Cluster.get(ctx, installable()[0], "", ns)
	if err != nil || o == nil {
		return err
	}
	return i.remove(ctx, o)
}
