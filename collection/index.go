package collection

// Index finds the values of a collection by other keys than their own.
type Index[K comparable, T any] struct {
	g     *Graph
	of    *core[T]
	keys  func(T) []K
	by    map[K]map[string]T
	dirty map[K]struct{} // touched in this wave
	ready bool
}

// NewIndex indexes c by the keys that f gives for each value.
func NewIndex[K comparable, T any](c Collection[T], f func(T) []K) *Index[K, T] {
	of := coreOf(c)
	of.g.mu.Lock()
	defer of.g.mu.Unlock()
	x := &Index[K, T]{g: of.g, of: of, keys: f, by: map[K]map[string]T{}, dirty: map[K]struct{}{}}
	of.g.add(x)
	return x
}

// Lookup returns the values under a key, in no order. Inside a Map function use the package's Lookup instead.
func (x *Index[K, T]) Lookup(key K) []T {
	x.g.mu.RLock()
	defer x.g.mu.RUnlock()
	return x.lookup(key)
}

func (x *Index[K, T]) lookup(key K) []T {
	at := x.by[key]
	all := make([]T, 0, len(at))
	for _, v := range at {
		all = append(all, v)
	}
	return all
}

func (x *Index[K, T]) step() {
	if !x.ready {
		x.ready = true
		for k, v := range x.of.items {
			x.insert(k, v)
		}
		return
	}
	for _, e := range x.of.events {
		if e.Old != nil {
			for _, k := range x.keys(*e.Old) {
				x.dirty[k] = struct{}{}
				if delete(x.by[k], e.Key); len(x.by[k]) == 0 {
					delete(x.by, k)
				}
			}
		}
		if e.New != nil {
			x.insert(e.Key, *e.New)
		}
	}
}

func (x *Index[K, T]) insert(key string, v T) {
	for _, k := range x.keys(v) {
		x.dirty[k] = struct{}{}
		if x.by[k] == nil {
			x.by[k] = map[string]T{}
		}
		x.by[k][key] = v
	}
}

func (x *Index[K, T]) deliver() { clear(x.dirty) }

func (x *Index[K, T]) changed(yield func(any) bool) {
	for k := range x.dirty {
		if !yield(k) {
			return
		}
	}
}
