package install

import (
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// managersOf are those who manage a field of an object, given by its path, as the API server remembers them.
func managersOf(o *Object, path ...string) []string {
	var all []string
	for _, m := range o.GetManagedFields() {
		if m.FieldsV1 == nil || m.Subresource != "" {
			continue
		}
		var fields map[string]any
		if json.Unmarshal(m.FieldsV1.Raw, &fields) != nil {
			continue // whoever wrote this manages nothing that we could name
		}
		keys := make([]string, len(path))
		for i, p := range path {
			keys[i] = "f:" + p
		}
		if at(fields, keys...) != nil {
			all = append(all, m.Manager)
		}
	}
	return all
}

// onlyOurs reports whether a field is the installer's, or the control plane's, and nobody else's.
func onlyOurs(o *Object, path ...string) bool {
	all := managersOf(o, path...)
	for _, m := range all {
		if m != manager {
			return false
		}
	}
	return len(all) > 0
}

// made reports whether we have made an object, and it is still as we say it is.
func made(o *Object) bool { return o.GetLabels()[labelManaged] == manager }

// ourDefinition reports whether a custom resource definition is ours: nobody else has made it, or has written another over it.
func ourDefinition(o *Object) bool { return made(o) && onlyOurs(o, "spec", "versions") }

// stays reports whether an object that is there is left as it is: a namespace, of which the installer needs nothing but that it is
// there, and definitions of others, such as the provider's of the Gateway API, which may be newer.
func stays(k kind, before *Object) bool {
	switch {
	case before == nil:
		return false
	case k.name == "CustomResourceDefinition":
		return !ourDefinition(before)
	}
	return k.name == "Namespace"
}

// foreign refuses to take over what others have made.
func foreign(o *Object) error {
	if made(o) {
		return nil
	}
	whose, do := "somebody else's", "remove it, or install into a cluster without it"
	annotations := o.GetAnnotations()
	switch release, ns := annotations["meta.helm.sh/release-name"], annotations["meta.helm.sh/release-namespace"]; {
	case release != "":
		whose, do = fmt.Sprintf("of the Helm release %s in namespace %s", release, ns), fmt.Sprintf("go on with helm, or `helm uninstall -n %s %s` first", ns, release)
	case slices.ContainsFunc(o.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool { return m.Manager == "istio-operator" }):
		whose, do = "of an installation of Istio", "`istioctl uninstall` its revision first; its definitions, and with them your policies, may stay"
	}
	return fmt.Errorf("%s is there already, and %s: %s", describe(o), whose, do)
}
