package telemetry

import (
	"net/netip"
	"sync"
	"time"
)

// Limits of the lines about connections that went wrong: somebody who is denied may try as often as he likes.
const (
	window    = time.Second
	perLine   = 10   // equal lines in a window
	perWindow = 1000 // lines in a window, and different lines that are told apart in one
)

// limiter holds back equal lines, and tells how many it held back.
type limiter struct {
	write func(r *Record, repeated uint64)
	lost  func(n uint64)

	mu     sync.Mutex // guards below
	began  time.Time  // of the window
	lines  int        // in the window
	seen   map[lineKey]*repeated
	others uint64 // not told apart
	timed  bool   // the end of the window will be looked at
}

// lineKey is what makes lines equal to a reader: all but the client's port, the time and the counts.
type lineKey struct {
	direction   Direction
	early       bool
	src         netip.Addr
	dst         netip.AddrPort
	err, policy string
}

// repeated is a line of this window, the last of its kind, and how many of them were held back.
type repeated struct {
	lines int
	held  uint64
	last  Record
}

// admit writes a record, or holds it back.
func (l *limiter) admit(r *Record) {
	if l.ok(r) {
		l.write(r, 0)
	}
}

// room reports whether a line that is like no other may be written.
func (l *limiter) room() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.enterLocked()
	if l.lines < perWindow {
		l.lines++
		return true
	}
	l.others++
	l.flushLaterLocked(now)
	return false
}

// enterLocked begins a window if the last is over.
func (l *limiter) enterLocked() time.Time {
	now := time.Now()
	if now.Sub(l.began) >= window && !l.timed {
		l.began, l.lines, l.seen, l.others = now, 0, map[lineKey]*repeated{}, 0
	}
	return now
}

func (l *limiter) flushLaterLocked(now time.Time) {
	if !l.timed {
		l.timed = true
		time.AfterFunc(window-min(now.Sub(l.began), window), l.flush)
	}
}

func (l *limiter) ok(r *Record) bool {
	k := lineKey{r.Direction, r.Early, r.Src.Addr.Addr(), r.Dst.Addr, r.Err, r.Policy}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.enterLocked()
	x := l.seen[k]
	if x == nil && len(l.seen) < perWindow {
		x = &repeated{}
		l.seen[k] = x
	}
	switch {
	case x == nil:
		l.others++
	case x.lines < perLine && l.lines < perWindow:
		x.lines++
		l.lines++
		return true
	default:
		x.held++
		x.last = *r
	}
	l.flushLaterLocked(now)
	return false
}

// flush ends a window in which lines were held back.
func (l *limiter) flush() {
	l.mu.Lock()
	seen, others := l.seen, l.others
	l.seen, l.others, l.timed, l.began, l.lines = map[lineKey]*repeated{}, 0, false, time.Now(), 0
	l.mu.Unlock()
	for _, x := range seen {
		if x.held > 0 {
			l.write(&x.last, x.held)
		}
	}
	if others > 0 {
		l.lost(others)
	}
}
