package install

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kind is one that an installation is made of.
type kind struct {
	group, version, name, plural string
	cluster                      bool // not in a namespace
}

func (k kind) resource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.group, Version: k.version, Resource: k.plural}
}

// installable are the kinds that an installation is made of, in the order in which they are applied. They are deleted in the opposite
// order.
func installable() []kind {
	const rbac = "rbac.authorization.k8s.io"
	return []kind{
		{"", "v1", "Namespace", "namespaces", true},
		{"", "v1", "ResourceQuota", "resourcequotas", false},
		{"apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", true},
		{"", "v1", "ServiceAccount", "serviceaccounts", false},
		{rbac, "v1", "ClusterRole", "clusterroles", true},
		{rbac, "v1", "ClusterRoleBinding", "clusterrolebindings", true},
		{rbac, "v1", "Role", "roles", false},
		{rbac, "v1", "RoleBinding", "rolebindings", false},
		{"", "v1", "ConfigMap", "configmaps", false},
		{"networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", false},
		{"", "v1", "Service", "services", false},
		{"policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", false},
		{"apps", "v1", "Deployment", "deployments", false},
		{"apps", "v1", "DaemonSet", "daemonsets", false},
		{"autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", false},
		{"gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses", true},
		{"admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", true},
	}
}

func kindOf(o *Object) (kind, int, bool) {
	all := installable()
	i := slices.IndexFunc(all, func(k kind) bool {
		return k.name == o.GetKind() && schema.GroupVersion{Group: k.group, Version: k.version}.String() == o.GetAPIVersion()
	})
	if i < 0 {
		return kind{}, len(all), false
	}
	return all[i], i, true
}

// sorted puts objects into the order in which they are applied.
func sorted(objects []*Object) []*Object {
	slices.SortStableFunc(objects, func(a, b *Object) int {
		_, i, _ := kindOf(a)
		_, j, _ := kindOf(b)
		return i - j
	})
	return objects
}
