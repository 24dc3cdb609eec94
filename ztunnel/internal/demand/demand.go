// Package demand asks the control plane for resources by name, and waits until it has answered.
package demand

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Subscriptions are what an Asker keeps at the control plane.
type Subscriptions interface {
	Subscribe(names ...string)
	Unsubscribe(names ...string)
}

// Asker keeps track of names that were asked for. A name that was answered once needs no question: the control plane
// tells of it when it changes, also when there was nothing behind it.
type Asker struct {
	subs Subscriptions
	wait time.Duration
	most int

	mu    sync.Mutex // guards names
	names map[string]*asked
}

// asked is a name, and whether there is an answer.
type asked struct {
	done chan struct{} // closed with the first answer
	used bool          // since the last sweep
	kept bool          // never swept
}

// New makes an Asker that waits so long for an answer, and subscribes to at most so many names that were only asked
// for.
func New(subs Subscriptions, wait time.Duration, most int) *Asker {
	return &Asker{subs: subs, wait: wait, most: most, names: map[string]*asked{}}
}

// Keep subscribes to names for good, and does not wait.
func (a *Asker) Keep(names ...string) { a.subscribe(names, true) }

// Release takes Keep back.
func (a *Asker) Release(names ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range names {
		if x := a.names[n]; x != nil {
			x.kept = false
		}
	}
}

// Ask returns once every name was answered. The answer may be that there is nothing.
func (a *Asker) Ask(ctx context.Context, names ...string) error {
	asked := a.subscribe(names, false)
	var late <-chan time.Time
	for i, x := range asked {
		select {
		case <-x.done:
			continue
		default:
		}
		if late == nil {
			t := time.NewTimer(a.wait)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-x.done:
		case <-late:
			return fmt.Errorf("the control plane has not told within %s what %s is", a.wait, names[i])
		case <-ctx.Done():
			return fmt.Errorf("wait for what %s is: %w", names[i], context.Cause(ctx))
		}
	}
	return nil
}

func (a *Asker) subscribe(names []string, keep bool) []*asked {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*asked, len(names))
	var fresh []string
	for i, n := range names {
		x := a.names[n]
		if x == nil {
			a.makeRoomLocked()
			x = &asked{done: make(chan struct{})}
			a.names[n] = x
			fresh = append(fresh, n)
		}
		x.used, x.kept = true, x.kept || keep
		out[i] = x
	}
	if len(fresh) > 0 {
		a.subs.Subscribe(fresh...) // under the lock, so that an eviction cannot overtake it
	}
	return out
}

// makeRoomLocked takes back names that nobody has used since the last time, or any half if there are none. A name that
// still waits stays.
func (a *Asker) makeRoomLocked() {
	if len(a.names) < a.most {
		return
	}
	var unused, rest []string
	for n, x := range a.names {
		switch {
		case x.kept || !x.answered():
		case x.used:
			x.used = false
			rest = append(rest, n)
		default:
			unused = append(unused, n)
		}
	}
	if len(unused) == 0 {
		unused = rest[:len(rest)/2]
	}
	for _, n := range unused {
		delete(a.names, n)
	}
	if len(unused) > 0 {
		a.subs.Unsubscribe(unused...)
	}
}

func (x *asked) answered() bool {
	select {
	case <-x.done:
		return true
	default:
		return false
	}
}

// Answered tells that the control plane has spoken of names: as resources, by their aliases, or as what is not there.
func (a *Asker) Answered(names ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range names {
		if x := a.names[n]; x != nil && !x.answered() {
			close(x.done)
		}
	}
}
