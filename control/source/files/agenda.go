package files

import (
	"maps"
	"slices"
	"time"
)

// How long changes wait for others that belong to them.
const (
	quiet   = 20 * time.Millisecond  // after a file was put in place whole
	longest = 200 * time.Millisecond // for all of a batch
	// A file that is written where it is may be half there, and half of a policy is another policy.
	still       = 100 * time.Millisecond
	longestStir = 10 * time.Second // one that never stands still is read as it is
)

// agenda says when to look at which names.
type agenda struct {
	whole   map[string]bool // put in place whole, or gone
	settles time.Time       // when the batch of them is complete
	by      time.Time       // at the latest
	later   map[string]later
}

// later is a look at a name that must wait.
type later struct {
	at, first time.Time
	written   time.Time // when it was last written in place; zero where it waits for another reason
}

// look is a name whose turn has come.
type look struct {
	name    string
	written time.Time // when it was last written in place, zero for never
	waited  time.Duration
}

func newAgenda() *agenda { return &agenda{whole: map[string]bool{}, later: map[string]later{}} }

// changed notes names that were put in place whole or went.
func (a *agenda) changed(now time.Time, names ...string) {
	if len(names) == 0 {
		return
	}
	if len(a.whole) == 0 {
		a.by = now.Add(longest)
	}
	for _, n := range names {
		a.whole[n] = true
	}
	if a.settles = now.Add(quiet); a.settles.After(a.by) {
		a.settles = a.by
	}
}

// written notes a name that was written where it is.
func (a *agenda) written(now time.Time, name string) {
	delete(a.whole, name) // it was made empty and is being filled
	first := now
	if l, ok := a.later[name]; ok && !l.written.IsZero() {
		first = l.first
	}
	at := now.Add(still)
	if last := first.Add(longestStir); at.After(last) {
		at = last
	}
	a.later[name] = later{at, first, now}
}

// again looks at a name once more after a while, unless something happens to it before.
func (a *agenda) again(name string, at, written time.Time) {
	if _, busy := a.later[name]; !busy && !a.whole[name] {
		a.later[name] = later{at, at, written}
	}
}

// next is when the next turn comes; ok is false for never.
func (a *agenda) next() (at time.Time, ok bool) {
	if len(a.whole) > 0 {
		at, ok = a.settles, true
	}
	for _, l := range a.later {
		if !ok || l.at.Before(at) {
			at, ok = l.at, true
		}
	}
	return at, ok
}

// take gives the names whose turn it is, and those that would follow so soon that they may belong together.
func (a *agenda) take(now time.Time) []look {
	if at, ok := a.next(); !ok || at.After(now) {
		return nil
	}
	var out []look
	for name, l := range a.later {
		if !l.at.After(now.Add(quiet)) || a.whole[name] {
			out = append(out, look{name, l.written, now.Sub(l.first)})
			delete(a.later, name)
			delete(a.whole, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.whole)) {
		out = append(out, look{name: name, waited: max(0, now.Sub(a.by.Add(-longest)))})
	}
	clear(a.whole)
	slices.SortFunc(out, func(x, y look) int {
		if x.name < y.name {
			return -1
		}
		return 1
	})
	return out
}
