// Package collection derives sets from sets: indexed, watchable, recomputed only where an input changed.
package collection

import "iter"

// Collection is a keyed set of immutable values that can be watched.
type Collection[T any] interface {
	Get(key string) (T, bool)
	All() iter.Seq2[string, T]
	// Watch calls f with the present contents first, then with batches of changes, in order, until stop.
	// f must not block and must not call back into the collection.
	Watch(f func([]Event[T])) (stop func())
	// Synced is closed when the first full contents are there.
	Synced() <-chan struct{}
}

// Event is one change: Old is nil on addition, New is nil on removal.
type Event[T any] struct {
	Key      string
	Old, New *T
}
