package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// idle says what of an object a local cluster keeps and does not act on, so that nobody relies on it.
func idle(o kinds.Object) []string {
	var said []string
	k := kinds.Of(o)
	if why := idleKinds()[k.Resource()]; why != "" {
		said = append(said, fmt.Sprintf("%s %q is kept, but a local cluster %s", k.Kind, o.GetName(), why))
	}
	if spec := podSpec(o); spec != nil {
		said = append(said, idleLimits(spec)...)
	}
	return said
}

func idleKinds() map[string]string {
	return map[string]string{
		"networkpolicies.networking.k8s.io":             "enforces no NetworkPolicy: use an AuthorizationPolicy of the mesh",
		"ingresses.networking.k8s.io":                   "has no Ingress controller: use a Gateway and a VirtualService",
		"horizontalpodautoscalers.autoscaling":          "scales nothing by itself: use `ambit local scale`",
		"poddisruptionbudgets.policy":                   "heeds no disruption budget",
		"cronjobs.batch":                                "starts no CronJob: create a Job of it",
		"resourcequotas":                                "enforces no quota",
		"limitranges":                                   "enforces no limit range",
		"roles.rbac.authorization.k8s.io":               "gives every service account the same rights (reading all but Secrets)",
		"clusterroles.rbac.authorization.k8s.io":        "gives every service account the same rights (reading all but Secrets)",
		"rolebindings.rbac.authorization.k8s.io":        "gives every service account the same rights (reading all but Secrets)",
		"clusterrolebindings.rbac.authorization.k8s.io": "gives every service account the same rights (reading all but Secrets)",
	}
}

func idleLimits(spec *corev1.PodSpec) []string {
	var said []string
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		var names []string
		for name := range c.Resources.Limits {
			names = append(names, string(name))
		}
		if len(names) > 0 {
			slices.Sort(names)
			said = append(said, fmt.Sprintf("container %q: a local cluster does not enforce its limits of %s", c.Name, strings.Join(names, " and ")))
		}
	}
	return said
}

// podSpec is that of a pod or of the pods that a workload makes.
func podSpec(o kinds.Object) *corev1.PodSpec {
	switch o := o.(type) {
	case *corev1.Pod:
		return &o.Spec
	case *appsv1.Deployment:
		return &o.Spec.Template.Spec
	case *appsv1.DaemonSet:
		return &o.Spec.Template.Spec
	case *appsv1.StatefulSet:
		return &o.Spec.Template.Spec
	case *batchv1.Job:
		return &o.Spec.Template.Spec
	}
	return nil
}

// warn adds to an answer what is kept of an object and not acted on, in the form that Kubernetes' clients show.
func warn(w http.ResponseWriter, o kinds.Object) {
	for _, text := range idle(o) {
		text = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text)
		w.Header().Add("Warning", fmt.Sprintf(`299 - "%s"`, text))
	}
}
