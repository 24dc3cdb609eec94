package store

import (
	"fmt"
	"slices"
	"sync"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// historyLength bounds the changes kept per kind; a watcher further behind has to list again.
const historyLength = 1024

// EventType says what happened to an object, in the API's words.
type EventType string

// The types of events.
const (
	Added    EventType = "ADDED"
	Modified EventType = "MODIFIED"
	Deleted  EventType = "DELETED"
)

// Event is one change of one object.
type Event struct {
	Type     EventType
	Revision uint64
	Object   kinds.Object // after the change; of a deletion, the last state with the deletion's revision
	Old      kinds.Object // before it; nil of an addition
}

// Since lists the changes of a kind after a revision, oldest first, with the revision up to which that is complete.
// It is ErrGone when the store does not remember that far back.
func (s *Store) Since(k kinds.Kind, revision uint64) ([]Event, uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	set := s.sets[k.Resource()]
	if revision < set.lost {
		return nil, 0, fmt.Errorf("%d %w: the history of %s begins after %d", revision, ErrGone, k.Resource(), set.lost)
	}
	if revision > s.revision {
		return nil, 0, fmt.Errorf("%d %w: it is of another life of this cluster, which is at %d", revision, ErrGone, s.revision)
	}
	at, _ := slices.BinarySearchFunc(set.history, revision+1, func(e Event, r uint64) int {
		switch {
		case e.Revision < r:
			return -1
		case e.Revision > r:
			return 1
		}
		return 0
	})
	return slices.Clone(set.history[at:]), s.revision, nil
}

// Revision is that of the last change.
func (s *Store) Revision() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.revision
}

// Changed is closed at the next change of anything. Take it before looking, so that no change is missed.
func (s *Store) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

type subscription struct {
	resources map[string]bool // empty: all
	wake      chan struct{}
}

// Subscribe gives a channel that holds a token whenever something of these kinds (all, when none is named) may have
// changed since the token before; it starts with one. Many changes make one token.
func (s *Store) Subscribe(of ...kinds.Kind) (wake <-chan struct{}, stop func()) {
	sub := &subscription{resources: map[string]bool{}, wake: make(chan struct{}, 1)}
	for _, k := range of {
		sub.resources[k.Resource()] = true
	}
	sub.wake <- struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs[sub] = true
	return sub.wake, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subs, sub)
	})
}

// recordLocked remembers an event and wakes who waits for it.
func (s *Store) recordLocked(set *set, e Event) {
	if len(set.history) >= historyLength {
		drop := historyLength / 4
		set.lost = set.history[drop-1].Revision
		set.history = append(make([]Event, 0, historyLength), set.history[drop:]...)
	}
	set.history = append(set.history, e)
	resource := set.kind.Resource()
	for sub := range s.subs {
		if len(sub.resources) == 0 || sub.resources[resource] {
			select {
			case sub.wake <- struct{}{}:
			default:
			}
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}
