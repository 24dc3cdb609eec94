package store

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// problems are all that is wrong with the meaning of decoded objects, with file and line.
func problems(found []kinds.Located) error {
	var all kinds.Problems
	for _, l := range found {
		for _, p := range check(l.Object) {
			p.File, p.Line = l.File, l.Line
			all = append(all, p)
		}
		all = append(all, l.Problems()...)
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// check finds what Kubernetes' API server would refuse in the kinds that this cluster runs.
func check(o kinds.Object) kinds.Problems {
	c := checker{}
	switch o := o.(type) {
	case *corev1.Pod:
		c.pod("spec", o.Spec)
	case *corev1.Service:
		c.service(o.Spec)
	case *appsv1.Deployment:
		c.template(o.Spec.Selector, o.Spec.Template)
		c.count("spec.replicas", o.Spec.Replicas)
	case *appsv1.ReplicaSet:
		c.template(o.Spec.Selector, o.Spec.Template)
		c.count("spec.replicas", o.Spec.Replicas)
	case *appsv1.DaemonSet:
		c.template(o.Spec.Selector, o.Spec.Template)
	case *appsv1.StatefulSet:
		template := *o.Spec.Template.DeepCopy()
		for _, claim := range o.Spec.VolumeClaimTemplates { // each becomes a volume of the pod
			template.Spec.Volumes = append(template.Spec.Volumes, corev1.Volume{Name: claim.Name})
		}
		c.template(o.Spec.Selector, template)
		c.count("spec.replicas", o.Spec.Replicas)
	case *batchv1.Job:
		c.pod("spec.template.spec", o.Spec.Template.Spec)
		if p := o.Spec.Template.Spec.RestartPolicy; p != corev1.RestartPolicyNever && p != corev1.RestartPolicyOnFailure {
			c.fail("spec.template.spec.restartPolicy", fmt.Sprintf("%q is not allowed in a Job", p), "use Never or OnFailure")
		}
	}
	return c.found
}

type checker struct{ found kinds.Problems }

func (c *checker) fail(path, what, hint string) {
	c.found = append(c.found, kinds.Problem{Path: path, What: what, Hint: hint})
}

func (c *checker) count(path string, n *int32) {
	if n != nil && *n < 0 {
		c.fail(path, fmt.Sprintf("is %d", *n), "it must be 0 or more")
	}
}

func (c *checker) template(selector *metav1.LabelSelector, t corev1.PodTemplateSpec) {
	if selector == nil || len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		c.fail("spec.selector", "is missing", "select the labels of spec.template.metadata.labels")
	} else if sel, err := metav1.LabelSelectorAsSelector(selector); err != nil {
		c.fail("spec.selector", err.Error(), "")
	} else if !sel.Matches(labels.Set(t.Labels)) {
		c.fail("spec.selector", fmt.Sprintf("%s does not select the template's labels %s", sel, labels.Set(t.Labels)), "make both alike")
	}
	c.pod("spec.template.spec", t.Spec)
}

func (c *checker) pod(path string, spec corev1.PodSpec) {
	if len(spec.Containers) == 0 {
		c.fail(path+".containers", "is empty", "give the pod a container")
	}
	volumes := map[string]bool{}
	for i, v := range spec.Volumes {
		if v.Name == "" || volumes[v.Name] {
			c.fail(fmt.Sprintf("%s.volumes[%d].name", path, i), fmt.Sprintf("%q is missing or there twice", v.Name), "")
		}
		volumes[v.Name] = true
	}
	names := map[string]bool{}
	for _, group := range []struct {
		field string
		list  []corev1.Container
	}{{"initContainers", spec.InitContainers}, {"containers", spec.Containers}} {
		for i, container := range group.list {
			at := fmt.Sprintf("%s.%s[%d]", path, group.field, i)
			if container.Name == "" || names[container.Name] {
				c.fail(at+".name", fmt.Sprintf("%q is missing or there twice", container.Name), "")
			}
			names[container.Name] = true
			for j, m := range container.VolumeMounts {
				if !volumes[m.Name] {
					c.fail(fmt.Sprintf("%s.volumeMounts[%d].name", at, j), fmt.Sprintf("no volume is called %q", m.Name), "")
				}
			}
			for j, p := range container.Ports {
				c.port(fmt.Sprintf("%s.ports[%d].containerPort", at, j), p.ContainerPort)
			}
		}
	}
	if p := spec.RestartPolicy; !slices.Contains([]corev1.RestartPolicy{"", corev1.RestartPolicyAlways, corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure}, p) {
		c.fail(path+".restartPolicy", fmt.Sprintf("is %q", p), "use Always, OnFailure or Never")
	}
}

func (c *checker) port(path string, n int32) {
	if n < 1 || n > 65535 {
		c.fail(path, fmt.Sprintf("%d is not a port", n), "use 1 to 65535")
	}
}

func (c *checker) service(spec corev1.ServiceSpec) {
	if !slices.Contains([]corev1.ServiceType{"", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName}, spec.Type) {
		c.fail("spec.type", fmt.Sprintf("is %q", spec.Type), "use ClusterIP, NodePort, LoadBalancer or ExternalName")
	}
	if spec.Type == corev1.ServiceTypeExternalName {
		if spec.ExternalName == "" {
			c.fail("spec.externalName", "is missing", "")
		}
		return
	}
	if len(spec.Ports) == 0 && spec.ClusterIP != corev1.ClusterIPNone {
		c.fail("spec.ports", "is empty", "give the service a port")
	}
	names := map[string]bool{}
	for i, p := range spec.Ports {
		at := fmt.Sprintf("spec.ports[%d]", i)
		c.port(at+".port", p.Port)
		if (p.Name == "" && len(spec.Ports) > 1) || names[p.Name] {
			c.fail(at+".name", fmt.Sprintf("%q is missing or there twice", p.Name), "name each port when there are several")
		}
		names[p.Name] = true
	}
}

// immutable refuses changes that an object cannot take in its life.
func immutable(old, next kinds.Object) error {
	fail := func(what string) error {
		return fmt.Errorf("%s %q %w: %s cannot be changed; delete it and create it anew", kinds.Of(old).Kind, old.GetName(), ErrInvalid, what)
	}
	switch was := old.(type) {
	case *appsv1.Deployment:
		if is := next.(*appsv1.Deployment); !reflect.DeepEqual(was.Spec.Selector, is.Spec.Selector) {
			return fail("spec.selector")
		}
	case *appsv1.DaemonSet:
		if is := next.(*appsv1.DaemonSet); !reflect.DeepEqual(was.Spec.Selector, is.Spec.Selector) {
			return fail("spec.selector")
		}
	case *appsv1.StatefulSet:
		if is := next.(*appsv1.StatefulSet); !reflect.DeepEqual(was.Spec.Selector, is.Spec.Selector) {
			return fail("spec.selector")
		}
	case *corev1.Service:
		is := next.(*corev1.Service)
		if is.Spec.ClusterIP != "" && was.Spec.ClusterIP != "" && is.Spec.ClusterIP != was.Spec.ClusterIP {
			return fail("spec.clusterIP")
		}
	case *corev1.Pod:
		if is := next.(*corev1.Pod); was.Spec.NodeName != "" && is.Spec.NodeName != "" && is.Spec.NodeName != was.Spec.NodeName {
			return fail("spec.nodeName")
		}
	}
	return nil
}
