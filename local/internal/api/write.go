package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// decode reads the one object of a body, strictly.
func decode(data []byte, q request) (kinds.Object, error) {
	found, err := kinds.Decode("request", data)
	if err != nil {
		return nil, problem{http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, err.Error()}
	}
	if len(found) != 1 || kinds.Of(found[0].Object).Resource() != q.kind.Resource() {
		return nil, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "the body must be one " + q.kind.Kind}
	}
	o := found[0].Object
	if ns := o.GetNamespace(); q.kind.Namespaced && ns != "" && ns != q.namespace {
		return nil, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, fmt.Sprintf("the namespace of the object (%s) is not that of the request (%s)", ns, q.namespace)}
	}
	if q.kind.Namespaced {
		o.SetNamespace(q.namespace)
	}
	if q.name != "" && o.GetName() != q.name {
		return nil, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, fmt.Sprintf("the name of the object (%s) is not that of the request (%s)", o.GetName(), q.name)}
	}
	return o, nil
}

func (s *Server) create(w http.ResponseWriter, r *http.Request, q request) error {
	if q.kind.Namespaced && q.namespace == "" {
		return problem{http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "objects are created in a namespace"}
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if data, err = plain(r, data); err != nil {
		return err
	}
	o, err := decode(data, q)
	if err != nil {
		return err
	}
	store.CopyStatus(o, q.kind.New())
	if o, err = s.writer(q).Create(o); err != nil {
		return err
	}
	warn(w, o)
	return send(w, http.StatusCreated, o)
}

func (s *Server) update(w http.ResponseWriter, r *http.Request, q request) error {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if data, err = plain(r, data); err != nil {
		return err
	}
	next, err := decode(data, q)
	if err != nil {
		return err
	}
	return s.change(w, q, func(kinds.Object) (kinds.Object, error) { return next, nil })
}

// change replaces an object, or only its status, by what f makes of the present one.
func (s *Server) change(w http.ResponseWriter, q request, f func(present kinds.Object) (kinds.Object, error)) error {
	o, err := s.writer(q).Update(q.kind, q.namespace, q.name, func(present kinds.Object) error {
		next, err := f(present)
		if err != nil {
			return err
		}
		if q.sub == "status" {
			store.CopyStatus(present, next)
			present.SetResourceVersion(next.GetResourceVersion())
			if q.kind.Kind == "Pod" { // whose labels and annotations may be written with its status, as on Kubernetes
				present.SetLabels(next.GetLabels())
				present.SetAnnotations(next.GetAnnotations())
			}
			return nil
		}
		store.CopyStatus(next, present)
		reflect.ValueOf(present).Elem().Set(reflect.ValueOf(next).Elem())
		return nil
	})
	if err != nil {
		return err
	}
	if q.sub == "" {
		warn(w, o)
	}
	return send(w, http.StatusOK, o)
}

func (s *Server) patch(w http.ResponseWriter, r *http.Request, q request) error {
	patch, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return problem{http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, "Content-Type: " + err.Error()}
	}
	switch kind {
	case "application/merge-patch+json":
		return s.change(w, q, func(present kinds.Object) (kinds.Object, error) { return patched(present, patch, q, mergePatch) })
	case "application/json-patch+json":
		return s.change(w, q, func(present kinds.Object) (kinds.Object, error) { return patched(present, patch, q, jsonPatch) })
	case "application/strategic-merge-patch+json":
		return s.change(w, q, func(present kinds.Object) (kinds.Object, error) { return patched(present, patch, q, merger(q)) })
	case "application/apply-patch+yaml":
		o, err := decode(patch, q)
		if err != nil {
			return err
		}
		if q.sub == "status" {
			return s.change(w, q, func(present kinds.Object) (kinds.Object, error) {
				o.SetResourceVersion(present.GetResourceVersion())
				o.SetLabels(present.GetLabels())
				o.SetAnnotations(present.GetAnnotations())
				return o, nil
			})
		}
		if r.URL.Query().Get("fieldManager") != "kubectl" {
			return s.contribute(w, q, o)
		}
		applied, action, err := s.writer(q).Apply(o)
		if err != nil {
			return err
		}
		warn(w, applied)
		if action == store.Created {
			return send(w, http.StatusCreated, applied)
		}
		return send(w, http.StatusOK, applied)
	}
	return problem{http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, "patches are json-patch, merge-patch, strategic-merge-patch or apply-patch, not " + kind}
}

// contribute adds what one of several writers says of an object to what is there. What it said before and says no more
// stays: only kubectl's word is remembered.
func (s *Server) contribute(w http.ResponseWriter, q request, o kinds.Object) error {
	if _, err := s.store.Get(q.kind, q.namespace, q.name); errors.Is(err, store.ErrNotFound) {
		store.CopyStatus(o, q.kind.New())
		created, err := s.writer(q).Create(o)
		if err != nil {
			return err
		}
		return send(w, http.StatusCreated, created)
	}
	patch, err := kinds.EncodeJSON(o)
	if err != nil {
		return err
	}
	return s.change(w, q, func(present kinds.Object) (kinds.Object, error) { return patched(present, patch, q, merger(q)) })
}

// merger is how a patch of a kind merges by its lists' keys, where it has any.
func merger(q request) func(current, patch []byte) ([]byte, error) {
	if !store.Strategic(q.kind) {
		return mergePatch
	}
	return func(current, patch []byte) ([]byte, error) {
		return strategicpatch.StrategicMergePatch(current, patch, q.kind.New())
	}
}

func patched(present kinds.Object, patch []byte, q request, merge func(current, patch []byte) ([]byte, error)) (kinds.Object, error) {
	current, err := kinds.EncodeJSON(present)
	if err != nil {
		return nil, err
	}
	next, err := merge(current, patch)
	if err != nil {
		return nil, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "merge the patch: " + err.Error()}
	}
	return decode(next, q)
}

// mergePatch is RFC 7396.
func mergePatch(current, patch []byte) ([]byte, error) {
	var c, p map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(current, &c); err != nil {
		return nil, err
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(patch, &p); err != nil {
		return nil, err
	}
	return json.Marshal(merge(c, p))
}

func merge(to, patch map[string]any) map[string]any {
	if to == nil {
		to = map[string]any{}
	}
	for name, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(to, name)
		case map[string]any:
			inner, _ := to[name].(map[string]any)
			to[name] = merge(inner, value)
		default:
			to[name] = value
		}
	}
	return to
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request, q request) error {
	opts, err := q.deleteOptions(r)
	if err != nil {
		return err
	}
	if err := s.writer(q).Delete(q.kind, q.namespace, q.name, opts); err != nil {
		return err
	}
	if o, err := s.store.Get(q.kind, q.namespace, q.name); err == nil {
		return send(w, http.StatusOK, o)
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	sendJSON(w, http.StatusOK, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess})
	return nil
}

// deleteOptions reads how to delete, from the body and the URL, and whether it is a trial, which either may say.
func (q *request) deleteOptions(r *http.Request) (store.DeleteOptions, error) {
	opts := store.DeleteOptions{}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return opts, err
	}
	var wish metav1.DeleteOptions
	if len(data) > 0 {
		if strings.HasPrefix(r.Header.Get("Content-Type"), protobufType) {
			err = wrapped(data, &wish)
		} else {
			err = json.Unmarshal(data, &wish)
		}
		if err != nil {
			return opts, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "read the options: " + err.Error()}
		}
	}
	switch {
	case len(wish.DryRun) == 1 && wish.DryRun[0] == metav1.DryRunAll:
		q.dry = true
	case len(wish.DryRun) > 0: // never take for real what was meant as a trial
		return opts, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "dryRun must be All"}
	}
	if text := r.URL.Query().Get("gracePeriodSeconds"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return opts, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "gracePeriodSeconds: " + err.Error()}
		}
		wish.GracePeriodSeconds = &n
	}
	if n := wish.GracePeriodSeconds; n != nil {
		if *n < 0 {
			return opts, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "gracePeriodSeconds must be 0 or more"}
		}
		opts.Grace = new(time.Duration(*n) * time.Second)
	}
	if wish.Preconditions != nil && wish.Preconditions.UID != nil {
		opts.UID = *wish.Preconditions.UID
	}
	return opts, nil
}

// removeAll removes every object of a list, and answers with that list.
func (s *Server) removeAll(w http.ResponseWriter, r *http.Request, q request) error {
	if q.kind.Namespaced && q.namespace == "" {
		return problem{http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "name the namespace whose objects to delete"}
	}
	opts, err := q.deleteOptions(r)
	if err != nil {
		return err
	}
	opts.UID = ""
	for _, o := range s.store.List(q.kind, q.namespace) {
		if !q.selector.matches(o) {
			continue
		}
		err := s.writer(q).Delete(q.kind, o.GetNamespace(), o.GetName(), opts)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return s.list(w, q)
}
