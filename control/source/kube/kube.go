// Package kube fills the control plane's objects from a Kubernetes API server and keeps them up to date.
package kube

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/lifecycle"
)

// How long changes wait for others that belong to them.
const (
	quiet   = 10 * time.Millisecond
	longest = 100 * time.Millisecond
)

// Config of a Source.
type Config struct {
	// REST is how to reach the API server.
	REST *rest.Config
	Log  *slog.Logger
}

// Source follows the objects of an API server. What it has read stays in force whatever happens to the server: an object
// goes only when the server says that it is gone.
type Source struct {
	log   *slog.Logger
	api   *clients
	store *source.Store
	wake  chan struct{}

	mu       sync.Mutex // guards below
	tell     func()     // that there are other problems
	intakes  []*intake
	pending  map[place]change
	first    time.Time // when the first of pending came
	waiting  int       // kinds whose first list is not complete
	problems map[place]source.Problem
}

// place is an object among all, or with an empty key a kind.
type place struct {
	in  *intake
	key string
}

// change is what became of an object; nil is that it is gone.
type change struct{ object kinds.Object }

// Open makes the source of an API server. Run reads it.
func Open(c Config) (*Source, error) {
	api, err := newClients(c.REST)
	if err != nil {
		return nil, err
	}
	s := &Source{
		log: c.Log, api: api, store: source.NewStore(), wake: make(chan struct{}, 1), tell: func() {},
		pending: map[place]change{}, problems: map[place]source.Problem{},
	}
	for _, w := range followed() {
		s.intakes = append(s.intakes, &intake{what: w, s: s, have: map[string]held{}})
	}
	s.waiting = len(s.intakes)
	return s, nil
}

// Store is what the API server says. It is synced once the first lists of all kinds are complete.
func (s *Source) Store() *source.Store { return s.store }

// Run follows the API server until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	// The library logs each failure of each try; ours are told once.
	ctx = klog.NewContext(ctx, logr.Discard())
	g := lifecycle.NewGroup(ctx)
	for _, in := range s.intakes {
		g.Go("follow "+in.Resource(), in.run)
	}
	g.Go("apply", s.apply)
	return g.Wait()
}

// apply brings changes into the store, together what came together.
func (s *Source) apply(ctx context.Context) error {
	for synced := false; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		}
		if !synced && s.incomplete() > 0 {
			continue
		}
		for s.settle(ctx) {
		}
		waited, put, drop := s.take()
		if len(put)+len(drop) > 0 {
			s.store.ApplyAfter(waited, put, drop)
		}
		if !synced {
			synced = true
			s.store.MarkSynced()
			s.log.Info("objects of the API server are read", "objects", len(put))
		}
	}
}

func (s *Source) incomplete() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

// settle waits a moment for more; false when nothing came, or it is time.
func (s *Source) settle(ctx context.Context) bool {
	s.mu.Lock()
	left := longest - time.Since(s.first)
	s.mu.Unlock()
	if left <= 0 {
		return false
	}
	t := time.NewTimer(min(quiet, left))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-s.wake:
		return true
	case <-t.C:
		return false
	}
}

func (s *Source) take() (waited time.Duration, put []kinds.Object, drop []source.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, c := range s.pending {
		if c.object != nil {
			put = append(put, c.object)
		} else {
			drop = append(drop, source.Ref{Kind: p.in.Kind, Key: p.key})
		}
	}
	if len(s.pending) > 0 {
		waited = time.Since(s.first)
	}
	s.pending = map[place]change{}
	return waited, put, drop
}

// changeLocked notes what became of an object.
func (s *Source) changeLocked(p place, c change) {
	if len(s.pending) == 0 {
		s.first = time.Now()
	}
	s.pending[p] = c
	s.signal()
}

func (s *Source) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Problems are the objects that are not understood as they are now, and the kinds that cannot be read.
func (s *Source) Problems() []source.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.problems), func(a, b source.Problem) int { return cmp.Compare(a.File, b.File) })
}

// OnProblem has f called whenever there are other problems than before. It must not block nor call back.
func (s *Source) OnProblem(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell = f
}

// problemLocked notes a problem, or with the zero value that there is none.
func (s *Source) problemLocked(p place, now source.Problem) {
	was, had := s.problems[p]
	now.File, now.Since = p.in.Resource(), time.Now()
	if p.key != "" {
		now.File = p.in.Kind.Kind + " " + p.key
	}
	if had {
		now.Since = was.Since
	}
	switch {
	case now.Why == "" && !had, had && sameProblem(was, now):
		return
	case now.Why == "":
		delete(s.problems, p)
		s.log.Info("understood again, or gone", "what", now.File)
	default:
		s.problems[p] = now
		s.log.Error(inForce(now), "what", now.File, "why", strings.TrimSpace(now.Why))
	}
	s.tell()
}

// inForce tells what is in force in place of what cannot be read.
func inForce(p source.Problem) string {
	switch {
	case len(p.Closed) > 0:
		return "not understood, and never was: until it is, it refuses everything that it may be about"
	case len(p.Unread) > 0:
		return "not understood, and never was: nothing of it is in force"
	}
	return "not read, what was read before stays in force"
}

func sameProblem(a, b source.Problem) bool {
	same := func(a, b []source.Ref) bool { return slices.EqualFunc(a, b, sameRef) }
	return a.Why == b.Why && same(a.Kept, b.Kept) && same(a.Closed, b.Closed) && same(a.Unread, b.Unread)
}

func sameRef(a, b source.Ref) bool { return a.Key == b.Key && a.Kind.Resource() == b.Kind.Resource() }
