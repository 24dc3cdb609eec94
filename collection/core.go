package collection

import (
	"fmt"
	"iter"
	"maps"
)

// core is what every collection of ours is inside: contents, this wave's events, watchers.
type core[T any] struct {
	g        *Graph
	items    map[string]T
	equal    func(a, b T) bool
	events   []Event[T] // of this wave
	watchers map[int]func([]Event[T])
	nextID   int
	done     chan struct{} // closed once synced
}

// coreOf finds the inside of a collection made by this package; another implementation cannot be derived from.
func coreOf[T any](c Collection[T]) *core[T] {
	in, ok := c.(interface{ inside() *core[T] })
	if !ok {
		panic(fmt.Sprintf("collection: %T was not made by this package", c))
	}
	return in.inside()
}

func newCore[T any](g *Graph, equal func(a, b T) bool, done chan struct{}) *core[T] {
	return &core[T]{g: g, items: map[string]T{}, equal: equal, watchers: map[int]func([]Event[T]){}, done: done}
}

func (c *core[T]) inside() *core[T] { return c }

// Get returns the value of a key.
func (c *core[T]) Get(key string) (T, bool) {
	c.g.mu.RLock()
	defer c.g.mu.RUnlock()
	v, ok := c.items[key]
	return v, ok
}

// All runs over a copy of the contents, in no order.
func (c *core[T]) All() iter.Seq2[string, T] {
	c.g.mu.RLock()
	defer c.g.mu.RUnlock()
	return maps.All(maps.Clone(c.items))
}

// Watch implements Collection.
func (c *core[T]) Watch(f func([]Event[T])) (stop func()) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	now := make([]Event[T], 0, len(c.items))
	for k, v := range c.items {
		now = append(now, Event[T]{Key: k, New: &v})
	}
	if len(now) > 0 {
		f(now)
	}
	id := c.nextID
	c.nextID++
	c.watchers[id] = f
	return func() {
		c.g.mu.Lock()
		defer c.g.mu.Unlock()
		delete(c.watchers, id)
	}
}

// Synced implements Collection.
func (c *core[T]) Synced() <-chan struct{} { return c.done }

func (c *core[T]) put(key string, v T) {
	old, had := c.items[key]
	if had && c.equal(old, v) {
		return
	}
	e := Event[T]{Key: key, New: &v}
	if had {
		e.Old = &old
	}
	c.items[key] = v
	c.events = append(c.events, e)
}

func (c *core[T]) remove(key string) {
	old, had := c.items[key]
	if !had {
		return
	}
	delete(c.items, key)
	c.events = append(c.events, Event[T]{Key: key, Old: &old})
}

func (c *core[T]) deliver() {
	if len(c.events) == 0 {
		return
	}
	for _, f := range c.watchers {
		f(c.events)
	}
	c.events = nil
}

// changed runs over the keys that changed in this wave, for those that depend on them.
func (c *core[T]) changed(yield func(any) bool) {
	for _, e := range c.events {
		if !yield(e.Key) {
			return
		}
	}
}
