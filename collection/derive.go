package collection

import (
	"maps"
	"slices"
)

// Kind says how values of a derived collection are named and when two need not be told apart.
type Kind[T any] struct {
	Key   func(T) string
	Equal func(a, b T) bool
}

// Map derives at most one value from each value of in. f must be pure but for what it reads through Read.
// Where several inputs yield one key, the input whose own key sorts first wins.
func Map[I, O any](in Collection[I], out Kind[O], f func(*Read, I) (O, bool)) Collection[O] {
	return MapMany(in, out, func(r *Read, i I) []O {
		if o, ok := f(r, i); ok {
			return []O{o}
		}
		return nil
	})
}

// MapMany derives any number of values from each value of in, under the rules of Map.
func MapMany[I, O any](in Collection[I], out Kind[O], f func(*Read, I) []O) Collection[O] {
	from := coreOf(in)
	from.g.mu.Lock()
	defer from.g.mu.Unlock()
	d := &derived[I, O]{
		core: newCore(from.g, out.Equal, from.g.synced), in: from, key: out.Key, f: f,
		made: map[string]made{}, claims: map[string]map[string]O{}, rev: map[dep]map[string]struct{}{}, sources: map[source]int{},
	}
	from.g.add(d)
	return d
}

// derived is the collection that Map and MapMany make.
type derived[I, O any] struct {
	*core[O]
	in      *core[I]
	key     func(O) string
	f       func(*Read, I) []O
	made    map[string]made             // by input key
	claims  map[string]map[string]O     // output key → input key → value
	rev     map[dep]map[string]struct{} // which inputs depend on it
	sources map[source]int              // how many deps point at each
	ready   bool
}

// made is what one input led to.
type made struct {
	keys []string
	deps map[dep]struct{}
}

func (d *derived[I, O]) step() {
	if !d.ready {
		d.ready = true
		for _, k := range slices.Sorted(maps.Keys(d.in.items)) {
			d.compute(k)
		}
		return
	}
	dirty := map[string]struct{}{}
	for _, e := range d.in.events {
		dirty[e.Key] = struct{}{}
	}
	for s := range d.sources {
		touched := false
		for k := range s.changed {
			touched = true
			maps.Copy(dirty, d.rev[dep{s, k}])
		}
		if touched {
			maps.Copy(dirty, d.rev[dep{s, everything{}}])
		}
	}
	for k := range dirty {
		d.compute(k)
	}
}

// compute brings everything that came from one input up to date.
func (d *derived[I, O]) compute(input string) {
	before := d.made[input]
	for x := range before.deps {
		if delete(d.rev[x], input); len(d.rev[x]) == 0 {
			delete(d.rev, x)
		}
		if d.sources[x.from]--; d.sources[x.from] == 0 {
			delete(d.sources, x.from)
		}
	}
	delete(d.made, input)

	touched := map[string]struct{}{}
	for _, k := range before.keys {
		touched[k] = struct{}{}
		if delete(d.claims[k], input); len(d.claims[k]) == 0 {
			delete(d.claims, k)
		}
	}
	if v, ok := d.in.items[input]; ok {
		r := &Read{g: d.g, deps: map[dep]struct{}{}}
		now := made{deps: r.deps}
		for _, o := range d.f(r, v) {
			k := d.key(o)
			touched[k] = struct{}{}
			if d.claims[k] == nil {
				d.claims[k] = map[string]O{}
			}
			d.claims[k][input] = o
			now.keys = append(now.keys, k)
		}
		for x := range r.deps {
			if d.rev[x] == nil {
				d.rev[x] = map[string]struct{}{}
			}
			d.rev[x][input] = struct{}{}
			d.sources[x.from]++
		}
		d.made[input] = now
	}
	for k := range touched {
		d.settle(k)
	}
}

// settle makes the first claim on an output key its value.
func (d *derived[I, O]) settle(key string) {
	claims := d.claims[key]
	if len(claims) == 0 {
		d.remove(key)
		return
	}
	first := ""
	for k := range claims {
		if first == "" || k < first {
			first = k
		}
	}
	d.put(key, claims[first])
}

// Join is the union of collections of one graph; where several hold a key, the first of them in order wins.
func Join[T any](equal func(a, b T) bool, cs ...Collection[T]) Collection[T] {
	if len(cs) == 0 {
		panic("collection: a join needs at least one collection")
	}
	in := make([]*core[T], len(cs))
	for i, c := range cs {
		in[i] = coreOf(c)
	}
	g := in[0].g
	g.mu.Lock()
	defer g.mu.Unlock()
	j := &joined[T]{core: newCore(g, equal, g.synced), in: in}
	g.add(j)
	return j
}

type joined[T any] struct {
	*core[T]
	in    []*core[T]
	ready bool
}

func (j *joined[T]) step() {
	dirty := map[string]struct{}{}
	for _, c := range j.in {
		if !j.ready {
			for k := range c.items {
				dirty[k] = struct{}{}
			}
		}
		for _, e := range c.events {
			dirty[e.Key] = struct{}{}
		}
	}
	j.ready = true
	for k := range dirty {
		j.settle(k)
	}
}

func (j *joined[T]) settle(key string) {
	for _, c := range j.in {
		if v, ok := c.items[key]; ok {
			j.put(key, v)
			return
		}
	}
	j.remove(key)
}
