package collection

// Read records what a derived value was computed from.
type Read struct {
	g    *Graph
	deps map[dep]struct{}
}

// source is something that derived values can depend on.
type source interface {
	// changed runs over the keys that changed in this wave.
	changed(yield func(any) bool)
}

// dep is one key of one source; the key everything stands for all of it.
type dep struct {
	from source
	key  any
}

type everything struct{}

// Get reads a key of another collection of the same graph and depends on it.
func Get[T any](r *Read, c Collection[T], key string) (T, bool) {
	in := coreOf(c)
	r.need(in.g, in, key)
	v, ok := in.items[key]
	return v, ok
}

// Lookup reads the values under a key of an index of the same graph and depends on them. They come in no order.
func Lookup[K comparable, T any](r *Read, x *Index[K, T], key K) []T {
	r.need(x.g, x, key)
	return x.lookup(key)
}

// Everything reads a whole collection of the same graph and depends on all of it: for small ones only.
func Everything[T any](r *Read, c Collection[T]) []T {
	in := coreOf(c)
	r.need(in.g, in, everything{})
	all := make([]T, 0, len(in.items))
	for _, v := range in.items {
		all = append(all, v)
	}
	return all
}

func (r *Read) need(g *Graph, s source, key any) {
	if g != r.g {
		panic("collection: a derived value may only depend on collections of its own graph")
	}
	r.deps[dep{s, key}] = struct{}{}
}
