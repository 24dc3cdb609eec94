package install

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ambit-mesh/ambit/cli/internal/precheck"
	"github.com/ambit-mesh/ambit/mesh"
)

// Facts collects what decides whether a plan will work. It changes nothing. What may not be read is among what is unknown.
func (i *Installer) Facts(ctx context.Context, p *Plan) (precheck.Facts, error) {
	f := precheck.Facts{Namespace: p.Namespace, Refused: map[string]string{}}
	b, err := i.Cluster.read(ctx, "/version", nil)
	if err != nil {
		return f, fmt.Errorf("ask the API server for its version: %w", err)
	}
	var v struct{ GitVersion string }
	if err := json.Unmarshal(b, &v); err != nil {
		return f, fmt.Errorf("the API server's version: %w", err)
	}
	f.Version = v.GitVersion
	if f.Platform, f.PlatformWhy, err = i.Cluster.Platform(ctx); err != nil {
		f.Unknown = append(f.Unknown, err.Error())
	}
	look := func(into *[]Object, k kind, o metav1.ListOptions) {
		l, err := i.Cluster.any.Resource(k.resource()).List(ctx, o)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			f.Unknown = append(f.Unknown, fmt.Sprintf("%s: %v", k.plural, err))
		default:
			*into = l.Items
		}
	}
	all := metav1.ListOptions{}
	look(&f.Nodes, nodeKind(), all)
	look(&f.Namespaces, installable()[0], all)
	look(&f.NetworkPolicies, kind{"networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", false}, all)
	look(&f.DaemonSets, kind{"apps", "v1", "DaemonSet", "daemonsets", false}, all)
	look(&f.Deployments, kind{"apps", "v1", "Deployment", "deployments", false}, metav1.ListOptions{LabelSelector: "app=istiod"})
	look(&f.HostNetwork, podKind(), metav1.ListOptions{FieldSelector: "spec.hostNetwork=true"})
	look(&f.Labelled, podKind(), metav1.ListOptions{LabelSelector: mesh.LabelDataplaneMode + "=ambient"})
	var cilium, calico []Object
	look(&cilium, configMapKind(), metav1.ListOptions{FieldSelector: "metadata.name=cilium-config"})
	look(&calico, kind{"crd.projectcalico.org", "v1", "FelixConfiguration", "felixconfigurations", true}, all)
	for _, o := range cilium {
		f.Cilium, _, _ = unstructured.NestedStringMap(o.Object, "data")
	}
	for _, o := range calico {
		on, _, _ := unstructured.NestedBool(o.Object, "spec", "bpfEnabled")
		balancing, _, _ := unstructured.NestedString(o.Object, "spec", "bpfConnectTimeLoadBalancing")
		f.CalicoBPF = f.CalicoBPF || on && balancing != "Disabled"
	}
	i.plannedFacts(ctx, p, &f)
	if f.Forbidden, err = i.forbidden(ctx, p); err != nil {
		f.Unknown = append(f.Unknown, err.Error())
	}
	return f, nil
}

// plannedFacts looks at what is where the plan's objects will be, and has the API server try its pods.
func (i *Installer) plannedFacts(ctx context.Context, p *Plan, f *precheck.Facts) {
	for _, o := range p.Objects() {
		k, _, ok := kindOf(o)
		if !ok {
			continue
		}
		before, err := i.Cluster.get(ctx, k, o.GetNamespace(), o.GetName())
		switch {
		case err != nil:
			f.Unknown = append(f.Unknown, err.Error())
		case before == nil:
		case k.name == "CustomResourceDefinition":
			if stays(k, before) {
				f.Definitions = append(f.Definitions, precheck.Definition{Theirs: before, Ours: o})
			}
		case !stays(k, before):
			if err := foreign(before); err != nil {
				f.Foreign = append(f.Foreign, err.Error())
			}
		}
		if k.name == "DaemonSet" && slices.ContainsFunc(f.Namespaces, func(n Object) bool { return n.GetName() == o.GetNamespace() }) {
			switch err := i.tryPod(ctx, o); {
			case err == nil:
			case !apierrors.IsForbidden(err), strings.Contains(err.Error(), "service account"):
				f.Unknown = append(f.Unknown, fmt.Sprintf("whether pods of %s are taken: %v", describe(o), err))
			case !strings.Contains(err.Error(), "cannot create resource"): // what an account may not is told by itself
				f.Refused[describe(o)] = err.Error()
			}
		}
	}
}

// tryPod asks the API server whether it would take a pod such as those of a workload; it is not written.
func (i *Installer) tryPod(ctx context.Context, o *Object) error {
	spec, _, _ := unstructured.NestedMap(o.Object, "spec", "template", "spec")
	spec["serviceAccountName"] = "default" // its own may not be there yet
	spec["automountServiceAccountToken"] = false
	pod := &Object{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": spec}}
	labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
	delete(labels, "app") // so that nothing takes it for one of its own while it is tried
	pod.SetLabels(labels)
	pod.SetGenerateName("ambit-precheck-")
	_, err := i.Cluster.of(podKind(), o.GetNamespace()).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// forbidden lists what of an installation this account may not do.
func (i *Installer) forbidden(ctx context.Context, p *Plan) ([]string, error) {
	type question struct{ verb, group, resource string }
	may := func(q question) (bool, error) {
		review := &Object{Object: map[string]any{
			"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
			"spec": map[string]any{"resourceAttributes": map[string]any{"verb": q.verb, "group": q.group, "resource": q.resource, "namespace": ""}},
		}}
		got, err := i.Cluster.any.Resource(schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews"}).Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return false, fmt.Errorf("ask what this account may do: %w", err)
		}
		allowed, _, _ := unstructured.NestedBool(got.Object, "status", "allowed")
		return allowed, nil
	}
	if all, err := may(question{"*", "*", "*"}); all || err != nil {
		return nil, err
	}
	var asked []question
	for _, o := range p.Objects() {
		k, _, _ := kindOf(o)
		for _, verb := range []string{"get", "create", "patch", "delete"} {
			if q := (question{verb, k.group, k.plural}); !slices.Contains(asked, q) {
				asked = append(asked, q)
			}
		}
	}
	answers, errs := make([]bool, len(asked)), make([]error, len(asked))
	room := make(chan struct{}, 16)
	var wg sync.WaitGroup
	for n, q := range asked {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			answers[n], errs[n] = may(q)
		})
	}
	wg.Wait()
	var no []string
	for n, q := range asked {
		if errs[n] != nil {
			return nil, errs[n]
		}
		if !answers[n] {
			no = append(no, q.verb+" "+strings.TrimSuffix(q.resource+"."+q.group, "."))
		}
	}
	return no, nil
}
