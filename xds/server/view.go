package server

import (
	"iter"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/xds/delta"
)

// served is a type with its index of aliases.
type served[C any] struct {
	Type[C]
	aliases *collection.Index[string, delta.Resource]
}

// view shows a type to one caller.
type view[C any] struct {
	t      *served[C]
	caller C
}

// Names implements delta.View.
func (v view[C]) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range v.t.Resources.All() {
			if !yield(name) {
				return
			}
		}
	}
}

// Lookup implements delta.View.
func (v view[C]) Lookup(name string) (delta.Resource, bool) {
	r, ok := v.t.Resources.Get(name)
	if !ok || !v.sees(r) {
		return delta.Resource{}, false
	}
	return r, true
}

// Aliased implements delta.View.
func (v view[C]) Aliased(alias string) (names []string) {
	for _, r := range v.t.aliases.Lookup(alias) {
		if v.sees(r) {
			names = append(names, r.Name)
		}
	}
	return names
}

func (v view[C]) sees(r delta.Resource) bool { return v.t.Visible == nil || v.t.Visible(v.caller, r) }
