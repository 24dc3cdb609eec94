package lifecycle

import (
	"slices"
	"sync"
)

// Readiness is a set of tasks that must be done before a daemon is ready. The zero value is ready.
type Readiness struct {
	mu      sync.Mutex // guards below
	pending map[string]int
}

// Add names a task that readiness waits for and returns how to call it done. Calling it again does nothing.
func (r *Readiness) Add(task string) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		r.pending = map[string]int{}
	}
	r.pending[task]++
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.pending[task]--; r.pending[task] == 0 {
			delete(r.pending, task)
		}
	})
}

// Pending lists the tasks not yet done, sorted; none means ready.
func (r *Readiness) Pending() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.pending))
	for name := range r.pending {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
