package node_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/mesh"
)

// events notes what the agent tells of pods.
type events struct {
	mu  sync.Mutex // guards below
	all []string
}

func (e *events) hook(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/events") {
		return false
	}
	var o struct {
		Type, Reason, Message string
		InvolvedObject        struct{ Namespace, Name, UID, Kind string }
	}
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, strings.Join([]string{r.URL.Path, o.Type, o.Reason, o.InvolvedObject.Kind, o.InvolvedObject.Name, o.InvolvedObject.UID}, " "))
	w.WriteHeader(http.StatusCreated)
	return true
}

func (e *events) has(want string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.all, want)
}

func (e *events) none(t *testing.T, part string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.all {
		if strings.Contains(l, part) {
			t.Errorf("told %q", l)
		}
	}
}

// A node starts again, and the runtime made a pod's sandbox anew before the agent was there and without the plugin.
func TestRanUncaptured(t *testing.T) {
	w := newWorld(t)
	var told events
	w.api.Hook(told.hook)
	p, joins := w.pod("p", "u1", "10.0.0.1"), w.pod("joins", "u2", "10.0.0.2")
	o := p.running()
	o.Metadata.Annotations = map[string]string{mesh.AnnotationRedirection: mesh.RedirectionEnabled}
	w.api.Put(o)
	w.start()
	t.Run("CN-04 it is held, without a proxy, and its users hear of it", func(t *testing.T) {
		wait(t, "capture", p.captured)
		wait(t, "event", func() bool {
			return told.has("/api/v1/namespaces/default/events Warning MeshRanUncaptured Pod p u1")
		})
	})
	w.proxy(fakeztunnel.Yes)
	t.Run("of a pod that only joins nothing is told", func(t *testing.T) {
		w.api.Put(joins.running())
		joins.annotated(mesh.RedirectionEnabled)
		told.none(t, "joins")
	})
}

func TestUsersHearOfWhatLasts(t *testing.T) {
	w := newWorld(t)
	var told events
	w.api.Hook(told.hook)
	w.start()
	w.proxy(fakeztunnel.Yes)
	p := w.pod("p", "u1", "10.0.0.1")
	o := p.running()
	o.Status.PodIP = "10.0.0.99" // in no namespace
	w.api.Put(o)
	wait(t, "event", func() bool { return told.has("/api/v1/namespaces/default/events Warning MeshCaptureFailed Pod p u1") })
	told.none(t, "MeshCaptured")
	w.api.Put(p.running())
	wait(t, "event", func() bool { return told.has("/api/v1/namespaces/default/events Normal MeshCaptured Pod p u1") })
}
