package api

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/table"
	corev1 "k8s.io/api/core/v1"
)

// request is what a URL asks for.
type request struct {
	kind                 kinds.Kind
	namespace, name, sub string
	watch, bookmarks     bool
	initial              bool // a watch that begins with what is there, and says when that has been sent
	revision             string
	timeout              time.Duration
	selector             selector
	page                 page
	table                table.Embed      // the answer is to be a table that carries this of each object; "" is none
	dry                  bool             // the change is not to be kept
	answer               http.HandlerFunc // set for what is no object
	ambit                bool             // the path is our own, not Kubernetes'
}

// selector chooses objects.
type selector struct {
	labels labels.Selector
	fields fields.Selector
}

// parse reads a URL.
func (s *Server) parse(r *http.Request) (request, error) {
	if answer, ambit, ok := s.special(r.URL.Path); ok {
		return request{answer: answer, ambit: ambit}, nil
	}
	q, err := s.path(r.URL.Path)
	if err != nil {
		return request{}, err
	}
	v := r.URL.Query()
	q.watch = q.watch || v.Get("watch") == "true" || v.Get("watch") == "1"
	q.bookmarks = v.Get("allowWatchBookmarks") == "true" || v.Get("allowWatchBookmarks") == "1"
	q.initial = v.Get("sendInitialEvents") == "true"
	q.revision = v.Get("resourceVersion")
	if q.page, err = readPage(v.Get("limit"), v.Get("continue")); err != nil {
		return request{}, err
	}
	if q.table, err = wantsTable(r); err != nil {
		return request{}, err
	}
	switch v.Get("dryRun") {
	case "":
	case "All":
		q.dry = true
	default: // never take for real what was meant as a trial
		return request{}, problem{http.StatusBadRequest, "BadRequest", "dryRun must be All"}
	}
	if text := v.Get("timeoutSeconds"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return request{}, problem{http.StatusBadRequest, "BadRequest", "timeoutSeconds: " + err.Error()}
		}
		q.timeout = time.Duration(n) * time.Second
	}
	if q.selector, err = parseSelector(v.Get("labelSelector"), v.Get("fieldSelector")); err != nil {
		return request{}, err
	}
	return q, nil
}

// path reads /api/v1/… and /apis/GROUP/VERSION/….
func (s *Server) path(path string) (request, error) {
	notFound := problem{http.StatusNotFound, "NotFound", "there is nothing at " + path}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	group := ""
	switch {
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[1:]
	case parts[0] == "apis" && len(parts) > 3:
		group, parts = parts[1], parts[2:]
	default:
		return request{}, notFound
	}
	version, rest := parts[0], parts[1:]
	q := request{}
	if rest[0] == "watch" && len(rest) > 1 { // the old form
		q.watch, rest = true, rest[1:]
	}
	if len(rest) > 2 && rest[0] == "namespaces" && rest[2] != "status" && rest[2] != "finalize" {
		q.namespace, rest = rest[1], rest[2:]
	}
	for _, k := range kinds.All() {
		if k.Group == group && k.Plural == rest[0] && slices.Contains(k.Versions, version) {
			q.kind = k
		}
	}
	if q.kind.Kind == "" || len(rest) > 3 || slices.Contains(rest, "") {
		return request{}, notFound
	}
	if len(rest) > 1 {
		q.name = rest[1]
	}
	if len(rest) > 2 {
		q.sub = rest[2]
	}
	if !q.kind.Namespaced && q.namespace != "" || q.kind.Namespaced && q.namespace == "" && q.name != "" {
		return request{}, notFound
	}
	return q, nil
}

// parseSelector reads the two selectors. Fields are those that the API's clients here use.
func parseSelector(l, f string) (selector, error) {
	byLabel, err := labels.Parse(l)
	if err != nil {
		return selector{}, problem{http.StatusBadRequest, "BadRequest", "labelSelector: " + err.Error()}
	}
	byField, err := fields.ParseSelector(f)
	if err != nil {
		return selector{}, problem{http.StatusBadRequest, "BadRequest", "fieldSelector: " + err.Error()}
	}
	for _, q := range byField.Requirements() {
		if !slices.Contains([]string{"metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "involvedObject.name", "involvedObject.namespace", "involvedObject.kind", "involvedObject.uid", "type"}, q.Field) {
			return selector{}, problem{http.StatusBadRequest, "BadRequest", "fieldSelector: " + q.Field + " cannot be selected by"}
		}
	}
	return selector{byLabel, byField}, nil
}

func (s selector) matches(o kinds.Object) bool {
	if !s.labels.Matches(labels.Set(o.GetLabels())) {
		return false
	}
	if s.fields.Empty() {
		return true
	}
	set := fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()}
	switch o := o.(type) {
	case *corev1.Pod:
		set["spec.nodeName"], set["status.phase"] = o.Spec.NodeName, string(o.Status.Phase)
	case *corev1.Namespace:
		set["status.phase"] = string(o.Status.Phase)
	case *corev1.Secret:
		set["type"] = string(o.Type)
	case *corev1.Event:
		set["type"] = o.Type
		set["involvedObject.name"], set["involvedObject.namespace"] = o.InvolvedObject.Name, o.InvolvedObject.Namespace
		set["involvedObject.kind"], set["involvedObject.uid"] = o.InvolvedObject.Kind, string(o.InvolvedObject.UID)
	}
	return s.fields.Matches(set)
}
