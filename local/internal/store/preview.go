package store

import "github.com/ambit-mesh/ambit/control/source/kinds"

// Preview makes changes that are checked and answered like any, and not kept.
type Preview struct{ store *Store }

// Preview is for a client that wants to know what a change would do.
func (s *Store) Preview() Preview { return Preview{s} }

// Create is Store.Create, not kept.
func (p Preview) Create(o kinds.Object) (kinds.Object, error) {
	defer p.begin()()
	return p.store.create(o)
}

// Update is Store.Update, not kept.
func (p Preview) Update(k kinds.Kind, namespace, name string, f func(kinds.Object) error) (kinds.Object, error) {
	defer p.begin()()
	return p.store.update(k, keyOf(k, namespace, name), f)
}

// Apply is Store.Apply, not kept.
func (p Preview) Apply(o kinds.Object) (kinds.Object, Action, error) {
	defer p.begin()()
	return p.store.applyOne(o)
}

// Delete is Store.Delete, not kept.
func (p Preview) Delete(k kinds.Kind, namespace, name string, opts DeleteOptions) error {
	defer p.begin()()
	return p.store.remove(k, keyOf(k, namespace, name), opts)
}

func (p Preview) begin() (end func()) {
	p.store.write.Lock()
	p.store.dry = true
	return func() {
		p.store.dry = false
		p.store.write.Unlock()
	}
}
