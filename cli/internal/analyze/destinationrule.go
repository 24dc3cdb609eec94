package analyze

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func destinationRules(a *analysis) {
	each(a, func(l kinds.Located, d *networkingv1.DestinationRule) {
		host := d.Spec.GetHost()
		if strings.Contains(host, "*") {
			return
		}
		service, entry := a.host(host, d.Namespace)
		if service == nil && entry == nil {
			if a.live || a.localHost(host, d.Namespace) {
				a.add(l, finding{
					Warning, "IST0174", "spec.host", fmt.Sprintf("The host %s defined in the DestinationRule does not match any services in the mesh.", host),
					"name a Service, as NAME.NAMESPACE.svc.cluster.local if it is of another namespace, or a ServiceEntry's host" + a.near(host, d.Namespace),
				})
			}
			return
		}
		if service == nil || len(service.Spec.Selector) == 0 {
			return
		}
		pods := a.selected(service.Spec.Selector, service.Namespace)
		for i, s := range d.Spec.GetSubsets() {
			if !slices.ContainsFunc(pods, func(p pod) bool { return within(s.GetLabels(), p.labels) }) && (a.live || len(pods) > 0) {
				a.add(l, finding{
					Error, "IST0173", fmt.Sprintf("spec.subsets[%d].labels", i),
					fmt.Sprintf("The Subset %s defined in the DestinationRule does not select any pods. Which may lead to 503 UH (NoHealthyUpstream).", s.GetName()),
					fmt.Sprintf("no pod of service %s has the labels %s", service.Name, text(s.GetLabels())),
				})
			}
		}
	})
}

// localHost tells whether a name must be a service of the cluster, so that without the cluster its absence can be judged:
// a short one, as files hold what belongs together.
func (a *analysis) localHost(host, namespace string) bool {
	return !strings.Contains(host, ".") && slices.ContainsFunc(a.pods, func(p pod) bool { return p.namespace == namespace })
}

// near suggests a service of the namespace whose name is close.
func (a *analysis) near(host, namespace string) string {
	short, _, _ := strings.Cut(host, ".")
	var known []string
	for _, s := range a.services {
		if s.Namespace == namespace {
			known = append(known, s.Name)
		}
	}
	slices.Sort(known)
	if like, ok := kinds.Nearest(short, known); ok && like != short {
		return fmt.Sprintf("; did you mean %s?", like)
	}
	var elsewhere []string
	for _, s := range a.services {
		if s.Name == short && s.Namespace != namespace {
			elsewhere = append(elsewhere, s.Name+"."+s.Namespace)
		}
	}
	if len(elsewhere) > 0 {
		slices.Sort(elsewhere)
		return fmt.Sprintf("; did you mean %s?", strings.Join(elsewhere, " or "))
	}
	return ""
}
