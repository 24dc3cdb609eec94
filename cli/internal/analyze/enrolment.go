package analyze

import (
	"fmt"
	"slices"
	"strings"

	securityv1beta1 "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

func enrolment(a *analysis) {
	for _, l := range a.all {
		if selector, targets, ok := selectorOf(l.Object); ok && !targets {
			a.inForce(l, selector)
		}
	}
	each(a, func(l kinds.Located, p *securityv1.PeerAuthentication) { a.strangers(l, p) })
	each(a, func(l kinds.Located, s *corev1.Service) { a.halfIn(l, s) })
	for _, p := range a.pods {
		if !system(p.namespace) {
			a.captured(p)
		}
	}
}

// inForce wants the pods that a policy is for to be in the mesh: nobody enforces it on others.
func (a *analysis) inForce(l kinds.Located, selector map[string]string) {
	namespace := l.Object.GetNamespace()
	pods := slices.DeleteFunc(a.policyPods(selector, namespace), func(p pod) bool {
		return !a.knows(p.namespace) || p.labels["istio"] == "ingressgateway" || p.labels[mesh.LabelGatewayName] != "" || system(p.namespace)
	})
	var out []string
	for _, p := range pods {
		if !a.enrolled(p) {
			out = append(out, kinds.Of(p.Object).Kind+" "+keyOf(p.Object))
		}
	}
	if len(out) == 0 || namespace == mesh.SystemNamespace && len(selector) == 0 {
		return
	}
	slices.Sort(out)
	hint := fmt.Sprintf("label namespace %s %s=ambient", namespace, mesh.LabelDataplaneMode)
	if a.ambient(namespace) {
		hint = fmt.Sprintf("remove their label %s=none, or hostNetwork", mesh.LabelDataplaneMode)
	}
	all := "Nobody enforces this policy: none of the pods that it is for is in the mesh"
	if len(out) < len(pods) {
		all = "Nobody enforces this policy on pods that are not in the mesh"
	}
	a.add(l, finding{Warning, "AMB0002", "spec", fmt.Sprintf("%s (%s).", all, few(out)), hint})
}

// few lists three and says how many more.
func few(all []string) string {
	if len(all) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:3], ", "), len(all)-3)
	}
	return strings.Join(all, ", ")
}

// strangers tells who a demand for mutual TLS shuts out: pods that have no identity to prove.
func (a *analysis) strangers(l kinds.Located, p *securityv1.PeerAuthentication) {
	if p.Spec.GetMtls().GetMode() != securityv1beta1.PeerAuthentication_MutualTLS_STRICT {
		return
	}
	outside := map[string]int{}
	for _, c := range a.pods {
		if c.running == nil || system(c.namespace) || !a.knows(c.namespace) || a.enrolled(c) || c.running.Status.Phase != corev1.PodRunning ||
			c.labels["istio"] == "ingressgateway" || c.labels[mesh.LabelTunnel] == "http" {
			continue
		}
		outside[c.namespace]++
	}
	var out []string
	for ns, n := range outside {
		out = append(out, fmt.Sprintf("%s (%d pods)", ns, n))
	}
	if len(out) == 0 {
		return
	}
	slices.Sort(out)
	a.add(l, finding{
		Info, "AMB0004", "spec.mtls.mode", fmt.Sprintf("STRICT refuses every client that is not in the mesh; running ones are in: %s.", few(out)),
		fmt.Sprintf("if they are clients, label their namespaces %s=ambient first", mesh.LabelDataplaneMode),
	})
}

// halfIn finds services some of whose pods are in the mesh and some not: part of their traffic is in clear.
func (a *analysis) halfIn(l kinds.Located, s *corev1.Service) {
	if len(s.Spec.Selector) == 0 || system(s.Namespace) || !a.knows(s.Namespace) {
		return
	}
	var out []string
	pods := a.selected(s.Spec.Selector, s.Namespace)
	for _, p := range pods {
		if !a.enrolled(p) {
			out = append(out, kinds.Of(p.Object).Kind+" "+keyOf(p.Object))
		}
	}
	if len(out) == 0 || len(out) == len(pods) {
		return
	}
	slices.Sort(out)
	a.add(l, finding{
		Warning, "AMB0010", "spec.selector", fmt.Sprintf("Some pods of this service are in the mesh and some are not (%s): connections to those are plain text, and no policy holds there.", few(out)),
		"enrol all of them or none",
	})
}

// captured finds pods that should be in the mesh and are not.
func (a *analysis) captured(p pod) {
	asked := p.labels[mesh.LabelDataplaneMode] == mesh.DataplaneModeAmbient || p.labels[mesh.LabelDataplaneMode] == "" && a.ambient(p.namespace)
	if !asked {
		return
	}
	switch {
	case p.spec.HostNetwork:
		if p.running == nil || metav1.GetControllerOf(p.running) == nil { // others are told of by their template
			a.add(p.Located, finding{
				Info, "AMB0009", "spec", "Pods of the host network cannot be in the mesh: their connections are plain text, without an identity.",
				"leave hostNetwork out, or label them " + mesh.LabelDataplaneMode + "=none to say that it is meant",
			})
		}
	case p.running != nil && p.running.Status.Phase == corev1.PodRunning && p.running.DeletionTimestamp == nil && p.annotations[mesh.AnnotationRedirection] != mesh.RedirectionEnabled:
		a.add(p.Located, finding{
			Error, "AMB0006", "metadata", "The pod is asked to be in the mesh, but its traffic is not captured: it is plain text, and no policy holds.",
			"see the logs of istio-cni-node on " + p.spec.NodeName + "; `ambit explain` tells more",
		})
	}
}
