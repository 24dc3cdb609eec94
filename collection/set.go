package collection

import "sync"

// Set is a collection that its owner fills.
type Set[T any] struct {
	*core[T]
	key  func(T) string
	mark func()
}

// NewSet makes an empty set in a graph. key names a value; equal tells values that need not be told apart.
// Until MarkSynced is called, neither the set nor anything derived in its graph is synced.
func NewSet[T any](g *Graph, key func(T) string, equal func(a, b T) bool) *Set[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &Set[T]{core: newCore(g, equal, make(chan struct{})), key: key}
	g.waiting++
	s.mark = sync.OnceFunc(func() {
		close(s.done)
		g.syncedLocked()
	})
	g.add(s)
	return s
}

func (s *Set[T]) step() {}

// Upsert adds or replaces values as part of a wave.
func (s *Set[T]) Upsert(_ *Wave, values ...T) {
	for _, v := range values {
		s.put(s.key(v), v)
	}
}

// Delete removes keys as part of a wave; unknown ones do nothing.
func (s *Set[T]) Delete(_ *Wave, keys ...string) {
	for _, k := range keys {
		s.remove(k)
	}
}

// Replace makes values the whole contents, as part of a wave.
func (s *Set[T]) Replace(w *Wave, values ...T) {
	keep := make(map[string]bool, len(values))
	for _, v := range values {
		keep[s.key(v)] = true
	}
	for k := range s.items {
		if !keep[k] {
			s.remove(k)
		}
	}
	s.Upsert(w, values...)
}

// Put is Upsert as a wave of its own.
func (s *Set[T]) Put(values ...T) { s.g.Change(func(w *Wave) { s.Upsert(w, values...) }) }

// Drop is Delete as a wave of its own.
func (s *Set[T]) Drop(keys ...string) { s.g.Change(func(w *Wave) { s.Delete(w, keys...) }) }

// MarkSynced says that the first full contents are there. Calling it again does nothing.
func (s *Set[T]) MarkSynced() {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	s.mark()
}
