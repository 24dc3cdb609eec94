// Package admission answers an API server that asks whether an object of the mesh may be written.
package admission

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Judge decides whether objects may be written.
type Judge struct {
	// Reads reports whether the control plane reads objects of a kind.
	Reads func(kinds.Object) bool
	// Foretell tells what of a valid object will not do what it says.
	Foretell func(kinds.Object) []string
}

// mostWarnings and longestWarning are what API servers pass on to people in any case.
const (
	mostWarnings   = 10
	longestWarning = 250
)

// Review answers a request. What is not for us to judge may be written: kinds of others, a status, a deletion. So may an
// object that was not valid before and of which only labels, finalizers and the like change: else nobody could be rid of it.
func (j Judge) Review(q *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	yes := &admissionv1.AdmissionResponse{UID: q.UID, Allowed: true}
	if !strings.HasSuffix(q.Kind.Group, ".istio.io") || q.SubResource != "" || q.Operation != admissionv1.Create && q.Operation != admissionv1.Update {
		return yes
	}
	api := q.Kind.Group + "/" + q.Kind.Version
	if _, known := kinds.FindGVK(api, q.Kind.Kind); !known {
		yes.Warnings = warnings(fmt.Sprintf("ambit does not know kind %s (apiVersion %s): it has no effect", q.Kind.Kind, api))
		return yes
	}
	tree, err := parse(q.Object.Raw)
	if err == nil && (tree["apiVersion"] != api || tree["kind"] != q.Kind.Kind) {
		err = kinds.Problem{What: fmt.Sprintf("it is a %v (apiVersion %v), the request is about a %s (apiVersion %s)", tree["kind"], tree["apiVersion"], q.Kind.Kind, api)}
	}
	if err != nil {
		return refuse(q, err)
	}
	if meta, ok := tree["metadata"].(map[string]any); ok && meta["deletionTimestamp"] != nil {
		return yes
	}
	o, err := kinds.Check(tree)
	switch {
	case err != nil && q.Operation == admissionv1.Update && sameSpec(tree, q.OldObject.Raw):
		yes.Warnings = warnings("it is as little valid as before: " + err.Error())
	case err != nil:
		return refuse(q, err)
	case !j.Reads(o):
		yes.Warnings = warnings(fmt.Sprintf("this version does not read objects of kind %s: it has no effect", q.Kind.Kind))
	default:
		yes.Warnings = warnings(j.Foretell(o)...)
	}
	return yes
}

func parse(raw []byte) (map[string]any, error) {
	var tree map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &tree); err != nil {
		return nil, kinds.Problem{What: "it cannot be read: " + err.Error()}
	}
	return tree, nil
}

func sameSpec(tree map[string]any, before []byte) bool {
	old, err := parse(before)
	return err == nil && reflect.DeepEqual(tree["spec"], old["spec"])
}

func refuse(q *admissionv1.AdmissionRequest, why error) *admissionv1.AdmissionResponse {
	text := why.Error()
	between := " "
	if strings.Contains(text, "\n") {
		between = "\n"
	}
	return &admissionv1.AdmissionResponse{UID: q.UID, Result: &metav1.Status{
		Status: metav1.StatusFailure, Reason: metav1.StatusReasonBadRequest, Code: http.StatusBadRequest,
		Message: fmt.Sprintf("%s %s is not valid:%s%s", q.Kind.Kind, nameOf(q), between, text),
	}}
}

// nameOf is an object as people name it; it may have no name yet.
func nameOf(q *admissionv1.AdmissionRequest) string {
	if q.Namespace == "" {
		return q.Name
	}
	return q.Namespace + "/" + q.Name
}

// warnings are texts as they fit into the header that brings them to people.
func warnings(all ...string) (out []string) {
	for _, w := range all {
		if len(out) == mostWarnings {
			break
		}
		w = strings.Join(strings.Fields(w), " ")
		if r := []rune(w); len(r) > longestWarning {
			w = string(r[:longestWarning]) + "…"
		}
		out = append(out, w)
	}
	return out
}
