package install

import (
	"context"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Uninstall takes away what was found, and what the control plane has written until its end.
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
	written, _, err := i.written(ctx, r.purge)
	if err != nil {
		return err
	}
	for n := range written {
		if err := i.removeKind(ctx, writtenKind(&written[n]), &written[n]); err != nil {
			return err
		}
	}
	for _, d := range r.Definitions {
		if err := i.ended(ctx, &d.object); err != nil {
			return err
		}
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
		i.Report.Waiting("Removing "+describe(o), 0, 0, fmt.Sprintf("%d of %d pods are there", len(pods), most))
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

// ended waits until an object is away, with all that hangs on it.
func (i *Installer) ended(ctx context.Context, o *Object) error {
	k, _, _ := kindOf(o)
	var now *Object
	err := i.poll(ctx, func() (done bool, err error) {
		now, err = i.Cluster.get(ctx, k, o.GetNamespace(), o.GetName())
		if now != nil && now.GetUID() != o.GetUID() {
			now = nil // another of that name
		}
		if now != nil {
			i.Report.Waiting("Removing "+describe(o), 0, 0, "it is there until what it holds is gone")
		}
		return now == nil, err
	})
	if !errors.Is(err, errLate) {
		return err
	}
	why := "kubectl get " + k.plural + " " + o.GetName() + " -o yaml says why"
	if list, _, _ := unstructured.NestedSlice(now.Object, "status", "conditions"); len(list) > 0 {
		for _, e := range list {
			c, _ := e.(map[string]any)
			if c["status"] == "True" && text(c["message"]) != "" {
				why += "\n  " + text(c["message"])
			}
		}
	}
	return fmt.Errorf("%s is deleted and not away after %s: something in it has finalizers whose owner does not answer; %s", describe(o), i.within(), why)
}

// removeNamespace removes a namespace that the installer made, unless somebody keeps something in it.
func (i *Installer) removeNamespace(ctx context.Context, ns string) error {
	for _, k := range []kind{
		podKind(),
		{"apps", "v1", "Deployment", "deployments", false},
		{"apps", "v1", "StatefulSet", "statefulsets", false},
		{"apps", "v1", "DaemonSet", "daemonsets", false},
		{"batch", "v1", "CronJob", "cronjobs", false},
		secretKind(),
		{"", "v1", "Service", "services", false},
		{"", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", false},
		configMapKind(),
	} {
		items, err := i.Cluster.list(ctx, k, ns, "")
		if err != nil {
			return err
		}
		for _, o := range items {
			o.SetKind(k.name)
			if o.GetDeletionTimestamp() == nil && !standard(&o) {
				i.Report.Note(fmt.Sprintf("namespace %s stays: it has %s%s", ns, describe(&o), reason(&o)))
				return nil
			}
		}
	}
	o, err := i.Cluster.get(ctx, installable()[0], "", ns)
	if err != nil || o == nil {
		return err
	}
	if err := i.remove(ctx, o); err != nil {
		return err
	}
	return i.ended(ctx, o)
}

// standard is what a cluster itself puts into every namespace.
func standard(o *Object) bool {
	return o.GetKind() == "ConfigMap" && o.GetName() == "kube-root-ca.crt" || o.GetKind() == "Secret" && text(o.Object["type"]) == "kubernetes.io/service-account-token"
}

// reason is why something of a namespace that was ours is still there.
func reason(o *Object) string {
	if o.GetKind() == "Secret" && slices.Contains(authority(), o.GetName()) {
		return ", the key of the mesh's certificate authority: with it a new installation goes on with the same identities; --purge removes it"
	}
	return ", which is not ours"
}
