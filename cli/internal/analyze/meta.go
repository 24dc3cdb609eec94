package analyze

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"istio.io/api/annotation"
	"istio.io/api/label"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// word is an annotation or a label that Istio gives a meaning, and the kinds on which it has it; none is any.
type word struct {
	name  string
	kinds []string
}

func annotationWords() []word {
	var all []word
	for _, a := range annotation.AllResourceAnnotations() {
		w := word{name: a.Name}
		for _, r := range a.Resources {
			w.kinds = append(w.kinds, r.String())
		}
		all = append(all, w)
	}
	return all
}

func labelWords() []word {
	var all []word
	for _, l := range label.AllResourceLabels() {
		w := word{name: l.Name}
		for _, r := range l.Resources {
			w.kinds = append(w.kinds, r.String())
		}
		all = append(all, w)
	}
	// What its documentation and its control plane use, and the list leaves out.
	return append(all, word{name: mesh.LabelTunnel, kinds: []string{"Pod"}}, word{name: "istio.io/global"}, word{name: "istio.io/config"})
}

// istios tells whether a key is in the domain of Istio's words.
func istios(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	return ok && (domain == "istio.io" || strings.HasSuffix(domain, ".istio.io"))
}

func meta(a *analysis) {
	annotations, labels := annotationWords(), labelWords()
	for _, l := range a.all {
		o, kind := l.Object, kinds.Of(l.Object).Kind
		if system(o.GetNamespace()) && l.File == "" {
			continue // the mesh's own
		}
		a.words(l, "annotation", "metadata.annotations", kind, o.GetAnnotations(), annotations, labels)
		a.words(l, "label", "metadata.labels", kind, o.GetLabels(), labels, annotations)
		if p, ok := podOf(l); ok && p.running == nil {
			path := templatePath(o)
			a.words(l, "annotation", path+".annotations", "Pod", p.annotations, annotations, labels)
			a.words(l, "label", path+".labels", "Pod", p.labels, labels, annotations)
		}
		if ns, ok := o.(*corev1.Namespace); ok && ns.Labels[mesh.LabelDataplaneMode] == mesh.DataplaneModeAmbient && ns.Labels["istio-injection"] == "enabled" {
			a.add(l, finding{
				Warning, "IST0123", "metadata.labels",
				"The namespace has more than one type of injection labels [istio-injection " + mesh.LabelDataplaneMode + "], which may lead to undefined behavior.",
				"remove istio-injection: the ambient mesh needs no sidecar",
			})
		}
	}
}

func templatePath(o kinds.Object) string {
	switch o.(type) {
	case *batchv1.CronJob:
		return "spec.jobTemplate.spec.template.metadata"
	case *appsv1.Deployment, *appsv1.DaemonSet, *appsv1.StatefulSet, *appsv1.ReplicaSet, *batchv1.Job:
		return "spec.template.metadata"
	}
	return "metadata"
}

// words judges the keys of one map of an object.
func (a *analysis) words(l kinds.Located, what, path, kind string, have map[string]string, known, others []word) {
	for key, value := range have {
		if !istios(key) {
			continue
		}
		at := slices.IndexFunc(known, func(w word) bool { return w.name == key })
		if at < 0 {
			f := finding{Warning, "IST0108", path + "." + key, fmt.Sprintf("Unknown %s: %s", what, key), ""}
			if slices.ContainsFunc(others, func(w word) bool { return w.name == key }) {
				f.hint = "it is a " + map[string]string{"annotation": "label", "label": "annotation"}[what] + ": move it there"
			} else if near, ok := kinds.Nearest(key, names(known)); ok {
				f.hint = fmt.Sprintf("did you mean %s?", near)
			}
			if l.File != "" || f.hint != "" { // what controllers write on live objects is theirs
				a.add(l, f)
			}
			continue
		}
		if ks := known[at].kinds; len(ks) > 0 && !slices.Contains(ks, "Any") && !slices.Contains(ks, kind) {
			if l.File == "" && what == "label" && kind == "Pod" {
				continue
			}
			hint := "move it to one of those, or remove it: here it has no effect"
			if slices.Contains(ks, "Pod") && templatePath(l.Object) != "metadata" {
				hint = "move it to " + templatePath(l.Object) + ": on the " + kinds.Of(l.Object).Kind + " itself it has no effect"
			}
			a.add(l, finding{Warning, "IST0107", path + "." + key, fmt.Sprintf("Misplaced %s: %s can only be applied to %s", what, key, strings.Join(ks, ", ")), hint})
		}
		if want := values(key, value); want != "" {
			a.add(l, finding{Warning, "IST0125", path + "." + key, fmt.Sprintf("Invalid %s %s: %q is not one of its values", what, key, value), "use " + want})
		}
	}
}

func names(all []word) []string {
	var out []string
	for _, w := range all {
		out = append(out, w.name)
	}
	return out
}

// values says what a key may be, if its value is something else.
func values(key, value string) string {
	oneOf := func(words ...string) string {
		if slices.Contains(words, value) {
			return ""
		}
		return strings.Join(words, " or ")
	}
	switch key {
	case mesh.LabelDataplaneMode:
		return oneOf("ambient", "none")
	case mesh.LabelWaypointFor:
		return oneOf("service", "workload", "all", "none")
	case mesh.AnnotationBypassInbound, mesh.AnnotationDNSCapture, mesh.AnnotationDryRun, mesh.LabelIngressUseWaypoint:
		if _, err := strconv.ParseBool(value); err != nil {
			return "true or false"
		}
	}
	return ""
}
