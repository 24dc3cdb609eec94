// Package fakeapi is a small Kubernetes API server of pods and namespaces that can be told to misbehave.
package fakeapi

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Meta is what objects say about themselves.
type Meta struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace,omitempty"`
	UID             string            `json:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// Object is a pod or a namespace.
type Object struct {
	Metadata Meta `json:"metadata"`
	Spec     struct {
		NodeName           string `json:"nodeName,omitempty"`
		ServiceAccountName string `json:"serviceAccountName,omitempty"`
		HostNetwork        bool   `json:"hostNetwork,omitempty"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase,omitempty"`
		PodIP string `json:"podIP,omitempty"`
	} `json:"status"`
}

type event struct {
	Type   string `json:"type"`
	Object any    `json:"object"`
}

// change is an event that a watch from an earlier version has yet to be told of.
type change struct {
	version int
	pod     bool
	event   event
}

// Server is the API server.
type Server struct {
	URL, CAFile, TokenFile string
	// Close ends the server before the test ends.
	Close func()

	mu       sync.Mutex // guards below
	version  int
	history  []change
	objects  map[string]Object // by path
	watchers map[chan event]string
	hook     func(w http.ResponseWriter, r *http.Request) (done bool)
	requests []string
	conns    int
	held     bool
	pending  []func()
	issuing  *Issue
	revoked  map[string]bool
	issued   map[string]time.Time
}

// Start runs a server for the length of a test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{revoked: map[string]bool{}, issued: map[string]time.Time{}, objects: map[string]Object{}, watchers: map[chan event]string{}, version: 1}
	h := httptest.NewUnstartedServer(s)
	h.Config.ErrorLog = log.New(io.Discard, "", 0) // clients come and go
	h.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.conns++
		}
	}
	h.StartTLS()
	s.Close = sync.OnceFunc(func() { h.CloseClientConnections(); h.Close() })
	t.Cleanup(s.Close)
	dir := t.TempDir()
	s.URL, s.CAFile, s.TokenFile = h.URL, filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	for path, b := range map[string][]byte{s.CAFile: ca, s.TokenFile: []byte("one\n")} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Hook sees every request first; it answers itself if it returns true.
func (s *Server) Hook(f func(w http.ResponseWriter, r *http.Request) (done bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = f
}

// Requests lists "METHOD path?query token" of what was asked so far.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// Conns is how many connections were made so far.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// Watchers is how many watches are open.
func (s *Server) Watchers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watchers)
}

// HoldWatches keeps news from the watches, not from lists and reads, until the hold is released.
func (s *Server) HoldWatches(held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
	if !held {
		for _, f := range s.pending {
			f()
		}
		s.pending = nil
	}
}

func path(o Object) string {
	if o.Metadata.Namespace == "" {
		return "/api/v1/namespaces/" + o.Metadata.Name
	}
	return "/api/v1/namespaces/" + o.Metadata.Namespace + "/pods/" + o.Metadata.Name
}

// Put makes or changes an object.
func (s *Server) Put(o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(o)
}

func (s *Server) putLocked(o Object) {
	kind := "ADDED"
	if _, ok := s.objects[path(o)]; ok {
		kind = "MODIFIED"
	}
	s.version++
	o.Metadata.ResourceVersion = strconv.Itoa(s.version)
	s.objects[path(o)] = o
	s.tellLocked(o, kind)
}

// Delete ends an object.
func (s *Server) Delete(o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	o.Metadata.ResourceVersion = strconv.Itoa(s.version)
	delete(s.objects, path(o))
	s.tellLocked(o, "DELETED")
}

func (s *Server) tellLocked(o Object, kind string) {
	happened := change{s.version, o.Metadata.Namespace != "", event{kind, o}}
	send := func() {
		s.history = append(s.history, happened)
		for c, list := range s.watchers {
			if (list == "/api/v1/pods") == happened.pod {
				c <- happened.event
			}
		}
	}
	if s.held {
		s.pending = append(s.pending, send)
		return
	}
	send()
}

// Send gives every watch of a list an event as it is.
func (s *Server) Send(list, kind string, object any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, l := range s.watchers {
		if l == list {
			c <- event{kind, object}
		}
	}
}

// Pod reads a pod.
func (s *Server) Pod(namespace, name string) (Object, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects["/api/v1/namespaces/"+namespace+"/pods/"+name]
	return o, ok
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization"))
	hook := s.hook
	s.mu.Unlock()
	if hook != nil && hook(w, r) || !s.admit(w, r) {
		return
	}
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/token"):
		s.token(w, r)
	case r.Method == http.MethodPatch:
		s.patch(w, r)
	case r.URL.Query().Get("watch") == "true":
		s.watch(w, r)
	case r.URL.Path == "/api/v1/pods" || r.URL.Path == "/api/v1/namespaces":
		s.list(w, r)
	default:
		s.mu.Lock()
		o, ok := s.objects[r.URL.Path]
		s.mu.Unlock()
		answer(w, o, ok)
	}
}

func answer(w http.ResponseWriter, o any, ok bool) {
	if !ok {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(o) // the client may have gone
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	items := []Object{}
	for _, o := range s.objects {
		if (r.URL.Path == "/api/v1/pods") == (o.Metadata.Namespace != "") {
			items = append(items, o)
		}
	}
	version := strconv.Itoa(s.version)
	s.mu.Unlock()
	answer(w, map[string]any{"metadata": Meta{ResourceVersion: version}, "items": items}, true)
}

// watch tells what changes from now on, after everything that is newer than the version asked for.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	c := make(chan event, 1000+len(s.history))
	for _, h := range s.history {
		if h.version > from && (r.URL.Path == "/api/v1/pods") == h.pod {
			c <- h.event
		}
	}
	s.watchers[c] = r.URL.Path
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, c)
	}()
	w.WriteHeader(http.StatusOK)
	for {
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		select {
		case <-r.Context().Done():
			return
		case e := <-c:
			if e.Type == "END" {
				return
			}
			if raw, ok := e.Object.([]byte); ok { // bytes as they are
				_, err = w.Write(raw)
			} else {
				err = json.NewEncoder(w).Encode(e)
			}
			if err != nil {
				return
			}
		}
	}
}

func (s *Server) patch(w http.ResponseWriter, r *http.Request) {
	var p struct {
		Metadata struct {
			Annotations map[string]*string `json:"annotations"`
		} `json:"metadata"`
	}
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil || r.Header.Get("Content-Type") != "application/merge-patch+json" {
		http.Error(w, fmt.Sprint("not a patch: ", err), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[strings.TrimSuffix(r.URL.Path, "/status")]
	if ok {
		o.Metadata.Annotations = maps.Clone(o.Metadata.Annotations)
		if o.Metadata.Annotations == nil {
			o.Metadata.Annotations = map[string]string{}
		}
		for k, v := range p.Metadata.Annotations {
			if v == nil {
				delete(o.Metadata.Annotations, k)
			} else {
				o.Metadata.Annotations[k] = *v
			}
		}
		s.putLocked(o)
	}
	answer(w, o, ok)
}
