package collection

import "sync"

// Graph holds sets and everything derived from them. A change of its sets, a wave, runs through all of it before the
// call that made it returns: nobody ever sees a derived value older than its inputs.
type Graph struct {
	mu      sync.RWMutex // guards below, and the contents of every member
	nodes   []node       // in order of creation, so inputs come before what is derived from them
	waiting int          // sets not yet synced
	synced  chan struct{}
}

// node is a member of a graph.
type node interface {
	// step takes in what changed in the inputs during this wave.
	step()
	// deliver hands this wave's events to the watchers and forgets them.
	deliver()
}

// NewGraph makes an empty graph.
func NewGraph() *Graph { return &Graph{synced: make(chan struct{})} }

// Wave is a batch of changes that are seen together. Use it only inside Graph.Change.
type Wave struct{ g *Graph }

// Change applies changes to any of the graph's sets as one wave. f must not block.
func (g *Graph) Change(f func(*Wave)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&Wave{g})
	for _, n := range g.nodes {
		n.step()
	}
	for _, n := range g.nodes {
		n.deliver()
	}
}

// add registers n and takes in what its inputs already hold.
func (g *Graph) add(n node) {
	g.nodes = append(g.nodes, n)
	n.step()
	n.deliver()
}

func (g *Graph) syncedLocked() {
	if g.waiting--; g.waiting == 0 {
		close(g.synced)
	}
}

// Len is how many values c holds.
func Len[T any](c Collection[T]) int {
	in := coreOf(c)
	in.g.mu.RLock()
	defer in.g.mu.RUnlock()
	return len(in.items)
}

// Still runs f while no wave runs through c's graph: whatever the watchers of the last wave noted is then complete.
// f must not block and must not call back into the graph.
func Still[T any](c Collection[T], f func()) {
	g := coreOf(c).g
	g.mu.RLock()
	defer g.mu.RUnlock()
	f()
}
