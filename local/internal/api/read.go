package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/internal/store"
	"github.com/ambit-mesh/ambit/local/table"
)

func (s *Server) list(w http.ResponseWriter, q request) error {
	all, revision := s.store.ListAt(q.kind, q.namespace)
	objects := make([]kinds.Object, 0, len(all))
	for _, o := range all {
		if (q.name == "" || o.GetName() == q.name) && q.selector.matches(o) {
			objects = append(objects, o)
		}
	}
	objects, meta := q.page.cut(objects, revision)
	if q.table != "" {
		t, err := table.Of(q.kind, objects, table.Options{Now: time.Now()}, q.table)
		if err != nil {
			return err
		}
		t.ListMeta = meta
		sendJSON(w, http.StatusOK, t)
		return nil
	}
	head, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"apiVersion":%q,"kind":%q,"metadata":%s,"items":[`, q.kind.APIVersion(), q.kind.Kind+"List", head)
	for i, o := range objects {
		data, err := kinds.EncodeJSON(o)
		if err != nil {
			return err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(data)
	}
	b.WriteString("]}")
	sendBytes(w, http.StatusOK, b.Bytes())
	return nil
}

// bookmarkEvery is how often a watcher that asks for it learns the present revision.
const bookmarkEvery = 10 * time.Second

// watch sends changes until the client goes or its time is over.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, q request) error {
	out := watcher{w: w, q: q}
	// Taken before the first look: a change in between wakes the loop.
	changed := s.store.Changed()
	var revision uint64
	if q.revision == "" || q.revision == "0" || q.initial {
		var objects []kinds.Object
		objects, revision = s.store.ListAt(q.kind, q.namespace)
		for _, o := range objects {
			out.change(store.Event{Type: store.Added, Object: o})
		}
		if q.initial {
			out.bookmark(revision, true)
		}
	} else {
		var err error
		if revision, err = strconv.ParseUint(q.revision, 10, 64); err != nil {
			return problem{http.StatusBadRequest, "BadRequest", "resourceVersion: " + err.Error()}
		}
	}
	var over <-chan time.Time
	if q.timeout > 0 {
		over = time.After(q.timeout)
	}
	tick := time.NewTicker(bookmarkEvery)
	defer tick.Stop()
	out.flush()
	for out.err == nil {
		events, upTo, err := s.store.Since(q.kind, revision)
		if errors.Is(err, store.ErrGone) {
			out.gone(err)
			break
		}
		if err != nil {
			return err
		}
		for _, e := range events {
			out.change(e)
		}
		revision = upTo
		out.flush()
		select {
		case <-changed:
			changed = s.store.Changed()
		case <-tick.C:
			if q.bookmarks {
				out.bookmark(revision, false)
				out.flush()
			}
		case <-over:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
	return nil // the client has got the head of an answer already
}

// watcher writes frames; its first error stops it.
type watcher struct {
	w   http.ResponseWriter
	q   request
	err error
}

// encode is an object as the watcher wants it.
func (o *watcher) encode(object kinds.Object) ([]byte, error) {
	if o.q.table == "" {
		return kinds.EncodeJSON(object)
	}
	t, err := table.Of(o.q.kind, []kinds.Object{object}, table.Options{Now: time.Now()}, o.q.table)
	if err != nil {
		return nil, err
	}
	return json.Marshal(t)
}

// change sends an event as the selectors make it look: what begins to match is added, what ceases to is deleted.
func (o *watcher) change(e store.Event) {
	sees := func(object kinds.Object) bool {
		return object != nil && (o.q.namespace == "" || object.GetNamespace() == o.q.namespace) &&
			(o.q.name == "" || object.GetName() == o.q.name) && o.q.selector.matches(object)
	}
	is, was := e.Type != store.Deleted && sees(e.Object), sees(e.Old)
	switch {
	case is && was:
		e.Type = store.Modified
	case is:
		e.Type = store.Added
	case was:
		e.Type = store.Deleted
	default:
		return
	}
	data, err := o.encode(e.Object)
	if err != nil {
		o.err = err
		return
	}
	o.frame(string(e.Type), data)
}

func (o *watcher) bookmark(revision uint64, end bool) {
	mark := o.q.kind.New()
	mark.SetResourceVersion(strconv.FormatUint(revision, 10))
	if end {
		mark.SetAnnotations(map[string]string{"k8s.io/initial-events-end": "true"})
	}
	data, err := o.encode(mark)
	if err != nil {
		o.err = err
		return
	}
	o.frame("BOOKMARK", data)
}

func (o *watcher) gone(err error) {
	data, merr := json.Marshal(problemOf(err).status())
	if merr != nil {
		o.err = merr
		return
	}
	o.frame("ERROR", data)
	o.flush()
}

func (o *watcher) frame(kind string, object []byte) {
	if o.err != nil {
		return
	}
	o.w.Header().Set("Content-Type", "application/json")
	_, o.err = fmt.Fprintf(o.w, "{\"type\":%q,\"object\":%s}\n", kind, object)
}

func (o *watcher) flush() {
	if o.err == nil {
		o.w.Header().Set("Content-Type", "application/json")
		o.err = http.NewResponseController(o.w).Flush()
	}
}

func (s *Server) podLog(w http.ResponseWriter, r *http.Request, q request) error {
	pod, err := store.Get[*corev1.Pod](s.store, q.namespace, q.name)
	if err != nil {
		return err
	}
	v := r.URL.Query()
	o := LogOptions{
		Container: v.Get("container"), TailLines: -1,
		Follow: v.Get("follow") == "true", Previous: v.Get("previous") == "true", Timestamps: v.Get("timestamps") == "true",
	}
	for _, number := range []struct {
		name string
		to   *int64
	}{{"tailLines", &o.TailLines}, {"sinceSeconds", &o.SinceSeconds}} {
		if text := v.Get(number.name); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				return problem{http.StatusBadRequest, "BadRequest", number.name + " is " + strconv.Quote(text) + ", not a number of 0 or more"}
			}
			*number.to = n
		}
	}
	if o.Container, err = containerOf(pod, o.Container); err != nil {
		return err
	}
	out := &logWriter{w: w}
	if err := s.logs(r.Context(), pod, o, out); err != nil && r.Context().Err() == nil {
		if !out.began {
			return problem{http.StatusBadRequest, "BadRequest", err.Error()}
		}
		s.log.Warn("sending a log ended early", "pod", q.namespace+"/"+q.name, "err", err)
	}
	if !out.began {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusOK)
	}
	return nil
}

// containerOf is the container whose log is meant.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	if name == "" {
		name = pod.Annotations["kubectl.kubernetes.io/default-container"]
	}
	if name == "" {
		return pod.Spec.Containers[0].Name, nil
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			if c.Name == name {
				return name, nil
			}
		}
	}
	return "", problem{http.StatusBadRequest, "BadRequest", fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name)}
}

// logWriter sends each piece of a log at once.
type logWriter struct {
	w     http.ResponseWriter
	began bool
}

var _ io.Writer = (*logWriter)(nil)

func (l *logWriter) Write(b []byte) (int, error) {
	if !l.began {
		l.w.Header().Set("Content-Type", "text/plain")
		l.began = true
	}
	n, err := l.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(l.w).Flush()
}
