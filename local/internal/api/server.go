// Package api serves the objects of a one-machine cluster as Kubernetes' API server does.
package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// maxBody bounds what a client may send.
const maxBody = 8 << 20

// LogOptions say what of a container's log to send.
type LogOptions struct {
	Container    string
	Follow       bool
	Previous     bool
	Timestamps   bool
	TailLines    int64 // -1: all
	SinceSeconds int64 // 0: all
}

// Config says what a server serves.
type Config struct {
	Store *store.Store
	// Logs writes a container's log, waiting for more when that is asked for until ctx ends.
	Logs func(ctx context.Context, pod *corev1.Pod, o LogOptions, w io.Writer) error
	Log  *slog.Logger
}

// Server answers requests.
type Server struct {
	store *store.Store
	logs  func(ctx context.Context, pod *corev1.Pod, o LogOptions, w io.Writer) error
	log   *slog.Logger
}

// New makes a server.
func New(c Config) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{store: c.Store, logs: c.Logs, log: c.Log}
}

// writer is what changes go to.
type writer interface {
	Create(o kinds.Object) (kinds.Object, error)
	Update(k kinds.Kind, namespace, name string, f func(kinds.Object) error) (kinds.Object, error)
	Apply(o kinds.Object) (kinds.Object, store.Action, error)
	Delete(k kinds.Kind, namespace, name string, opts store.DeleteOptions) error
}

func (s *Server) writer(q request) writer {
	if q.dry {
		return s.store.Preview()
	}
	return s.store
}

// Trusted is the handler for a socket that only the cluster's owner can open.
func (s *Server) Trusted() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.serve(w, r, func(request) error { return nil })
	})
}

// Authenticated is the handler for the cluster's network: who calls is proved by a bearer token, which verify turns
// into the name of a user, and may do little.
func (s *Server) Authenticated(verify func(token string) (user string, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			fail(w, problem{http.StatusUnauthorized, "Unauthorized", "a bearer token is needed"})
			return
		}
		user, err := verify(raw)
		if err != nil {
			s.log.Info("token refused", "from", r.RemoteAddr, "err", err)
			fail(w, problem{http.StatusUnauthorized, "Unauthorized", "the bearer token is not valid"})
			return
		}
		s.serve(w, r, func(q request) error { return authorize(user, r.Method, q) })
	})
}

// authorize is the cluster's whole access control: a ServiceAccount reads everything but Secrets; one of the system
// writes too, and reads Secrets in its own namespace.
func authorize(user, method string, q request) error {
	namespace, _, ok := strings.Cut(strings.TrimPrefix(user, "system:serviceaccount:"), ":")
	if !ok || !strings.HasPrefix(user, "system:serviceaccount:") {
		return errors.New("only ServiceAccounts may call")
	}
	system := namespace == "istio-system" || namespace == "kube-system"
	if q.kind.Kind == "Secret" && !(system && q.namespace == namespace) {
		return errors.New("Secrets are for the system's accounts of the same namespace")
	}
	if q.ambit || (method != http.MethodGet && !system) {
		return errors.New("only accounts of the system write")
	}
	return nil
}

// serve answers one request that authorize lets pass.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, authorize func(request) error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	q, err := s.parse(r)
	if err != nil {
		fail(w, err)
		return
	}
	if err := authorize(q); err != nil {
		fail(w, problem{http.StatusForbidden, "Forbidden", err.Error()})
		return
	}
	if q.answer != nil {
		q.answer(w, r)
		return
	}
	if err := s.object(w, r, q); err != nil {
		fail(w, err)
	}
}

func (s *Server) object(w http.ResponseWriter, r *http.Request, q request) error {
	switch {
	case q.sub == "log" && q.kind.Kind == "Pod" && r.Method == http.MethodGet:
		return s.podLog(w, r, q)
	case q.sub == "scale" && scales(q.kind):
		return s.scale(w, r, q)
	case q.kind.Kind == "Pod" && slices.Contains([]string{"attach", "exec", "portforward"}, q.sub):
		return problem{http.StatusNotFound, "NotFound", "this server has no " + q.sub + ": use `ambit local exec` and `ambit local port-forward`, which go another way"}
	case q.sub != "" && q.sub != "status":
		return problem{http.StatusNotFound, "NotFound", q.kind.Plural + " have no subresource " + q.sub}
	case r.Method == http.MethodGet && q.watch:
		return s.watch(w, r, q)
	case r.Method == http.MethodGet && q.name == "":
		return s.list(w, q)
	case r.Method == http.MethodGet:
		o, err := s.store.Get(q.kind, q.namespace, q.name)
		if err != nil {
			return err
		}
		if q.table != "" {
			return sendTable(w, q, o)
		}
		return send(w, http.StatusOK, o)
	case r.Method == http.MethodPost && q.name == "":
		return s.create(w, r, q)
	case r.Method == http.MethodPut && q.name != "":
		return s.update(w, r, q)
	case r.Method == http.MethodPatch && q.name != "":
		return s.patch(w, r, q)
	case r.Method == http.MethodDelete && q.name != "":
		return s.remove(w, r, q)
	case r.Method == http.MethodDelete:
		return s.removeAll(w, r, q)
	}
	return problem{http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method + " is not for " + r.URL.Path}
}
