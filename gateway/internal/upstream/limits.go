package upstream

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/api/l7"
)

// errOverflow: the backend has as much to do as its rule allows.
var errOverflow = errors.New("the backend's limit is reached")

// state is what is remembered of a backend, over its changes.
type state struct {
	log     *slog.Logger
	turn    atomic.Uint64 // of the round robin
	active  atomic.Int64  // requests
	retries atomic.Int64

	mu      sync.Mutex // guards below
	inUse   uint32     // connections that carry something
	waiting list.List  // of chan struct{}: closed when a connection is free
	health  map[Target]*health
}

func newState(log *slog.Logger) *state { return &state{log: log, health: map[Target]*health{}} }

// enter counts a request in, which may have to wait for a connection. Over HTTP/2 one connection carries all.
func (s *state) enter(ctx context.Context, l *l7.Limits, multiplexed bool) (leave func(), err error) {
	if n := s.active.Add(1); l.GetMaxRequests() > 0 && n > int64(l.GetMaxRequests()) {
		s.active.Add(-1)
		return nil, errOverflow
	}
	out := func() { s.active.Add(-1) }
	if multiplexed || l.GetMaxConnections() == 0 {
		return sync.OnceFunc(out), nil
	}
	if err := s.connection(ctx, l); err != nil {
		out()
		return nil, err
	}
	return sync.OnceFunc(func() { out(); s.release() }), nil
}

// connection takes one of the connections that the limits allow; the oldest of those who wait gets the next free one.
func (s *state) connection(ctx context.Context, l *l7.Limits) error {
	s.mu.Lock()
	if s.inUse < l.GetMaxConnections() {
		s.inUse++
		s.mu.Unlock()
		return nil
	}
	if p := l.GetMaxPending(); p > 0 && s.waiting.Len() >= int(p) {
		s.mu.Unlock()
		return errOverflow
	}
	free := make(chan struct{})
	place := s.waiting.PushBack(free)
	s.mu.Unlock()
	select {
	case <-free:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	select {
	case <-free: // it came at the same moment
		s.mu.Unlock()
		s.release()
	default:
		s.waiting.Remove(place)
		s.mu.Unlock()
	}
	return context.Cause(ctx)
}

// claim takes a connection for bytes, which nobody waits for.
func (s *state) claim(l *l7.Limits) (release func(), err error) {
	if l.GetMaxConnections() == 0 {
		return func() {}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse >= l.GetMaxConnections() {
		return nil, errOverflow
	}
	s.inUse++
	return sync.OnceFunc(s.release), nil
}

func (s *state) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first := s.waiting.Front(); first != nil {
		s.waiting.Remove(first)
		close(first.Value.(chan struct{}))
		return
	}
	s.inUse--
}

// retry reports whether one more retry may run now; done is called after it.
func (s *state) retry(l *l7.Limits) (done func(), ok bool) {
	if n := s.retries.Add(1); l.GetMaxRetries() > 0 && n > int64(l.GetMaxRetries()) {
		s.retries.Add(-1)
		return nil, false
	}
	return func() { s.retries.Add(-1) }, true
}
