package store

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// families settles which address families a service has, of those that the cluster has; as Kubernetes does.
func families(o kinds.Object, cluster []corev1.IPFamily) error {
	s, ok := o.(*corev1.Service)
	if !ok || s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	spec := &s.Spec
	if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	if len(spec.IPFamilies) == 0 { // an address that the service names says its family
		for _, text := range spec.ClusterIPs {
			if a, err := netip.ParseAddr(text); err == nil {
				spec.IPFamilies = append(spec.IPFamilies, familyOf(a))
			}
		}
	}
	policy := corev1.IPFamilyPolicySingleStack
	switch {
	case spec.IPFamilyPolicy != nil:
		policy = *spec.IPFamilyPolicy
	case len(spec.IPFamilies) > 1:
		policy = corev1.IPFamilyPolicyRequireDualStack
	case len(spec.Selector) == 0 && spec.ClusterIP == corev1.ClusterIPNone:
		policy = corev1.IPFamilyPolicyPreferDualStack
	}
	fail := func(what, todo string) error {
		return fmt.Errorf("service %q %w: %s; %s", s.Name, ErrInvalid, what, todo)
	}
	const todo = "start the cluster with --ip-family dual"
	for _, f := range spec.IPFamilies {
		if !slices.Contains(cluster, f) && (policy != corev1.IPFamilyPolicyPreferDualStack || f == spec.IPFamilies[0]) {
			return fail(fmt.Sprintf("spec.ipFamilies: this cluster has no %s", f), todo)
		}
	}
	want := slices.DeleteFunc(slices.Clone(spec.IPFamilies), func(f corev1.IPFamily) bool { return !slices.Contains(cluster, f) })
	if len(want) == 0 {
		want = cluster[:1:1]
	}
	switch policy {
	case corev1.IPFamilyPolicySingleStack:
		want = want[:1]
	case corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicyPreferDualStack:
		for _, f := range cluster {
			if !slices.Contains(want, f) {
				want = append(want, f)
			}
		}
		if policy == corev1.IPFamilyPolicyRequireDualStack && len(want) < 2 {
			return fail("spec.ipFamilyPolicy: this cluster has one address family", todo)
		}
	default:
		return fail(fmt.Sprintf("spec.ipFamilyPolicy is %q", policy), "use SingleStack, PreferDualStack or RequireDualStack")
	}
	spec.IPFamilyPolicy, spec.IPFamilies = &policy, want
	if spec.ClusterIP != corev1.ClusterIPNone && len(spec.ClusterIPs) > len(want) {
		spec.ClusterIPs = spec.ClusterIPs[:len(want)]
	}
	return nil
}

func familyOf(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}
