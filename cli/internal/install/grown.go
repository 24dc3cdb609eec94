package install

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// grown is an object as it is to be, with what the control plane has made of it since: an API server that refuses what it
// cannot ask about goes on doing so. The chart leaves it to Helm in the same way.
func grown(o, before *Object) *Object {
	if before == nil || o.GetKind() != "ValidatingWebhookConfiguration" {
		return o
	}
	policies := map[string]string{}
	for _, h := range hooks(before) {
		name, _, _ := unstructured.NestedString(h, "name")
		policies[name], _, _ = unstructured.NestedString(h, "failurePolicy")
	}
	o = o.DeepCopy()
	all := hooks(o)
	out := make([]any, len(all))
	for i, h := range all {
		name, _, _ := unstructured.NestedString(h, "name")
		if p := policies[name]; p != "" {
			h["failurePolicy"] = p
		}
		out[i] = h
	}
	o.Object["webhooks"] = out
	return o
}

// hooks are the webhooks of a configuration.
func hooks(o *Object) (out []map[string]any) {
	all, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	for _, h := range all {
		if m, ok := h.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
