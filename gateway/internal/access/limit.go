package access

import (
	"sync"
	"time"
)

// Limit keeps lines about what was no request from filling a disk: so many at once, and so many in each second. Requests
// have a line each.
type Limit struct {
	Burst, Rate float64
	Now         func() time.Time

	mu   sync.Mutex // guards below
	used float64
	last time.Time
	held int
}

// Admit reports whether a line may be written, and how many were held back since the last one that was.
func (l *Limit) Admit() (ok bool, held int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.Now()
	l.used = max(0, l.used-now.Sub(l.last).Seconds()*l.Rate)
	l.last = now
	if l.used+1 > l.Burst {
		l.held++
		return false, 0
	}
	l.used++
	held, l.held = l.held, 0
	return true, held
}
