package ca

import (
	"sync"
	"time"
)

// Limits of requests, per node: a node with several hundred pods starts within the burst.
const (
	perSecond = 50
	burst     = 500
	maxNodes  = 16384 // remembered at once; a full bucket is the same as none
)

// limiter lets each key do so many requests. The zero value is ready.
type limiter struct {
	mu      sync.Mutex         // guards below
	buckets map[string]*bucket // each full bucket may be forgotten
}

type bucket struct {
	tokens float64
	at     time.Time
}

func (l *limiter) allow(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buckets == nil {
		l.buckets = map[string]*bucket{}
	}
	b, ok := l.buckets[key]
	if !ok {
		if len(l.buckets) >= maxNodes {
			l.forgetLocked(now)
		}
		b = &bucket{tokens: burst, at: now}
		l.buckets[key] = b
	}
	b.refill(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *bucket) refill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(burst, b.tokens+d.Seconds()*perSecond)
		b.at = now
	}
}

func (l *limiter) forgetLocked(now time.Time) {
	for k, b := range l.buckets {
		if b.refill(now); b.tokens >= burst {
			delete(l.buckets, k)
		}
	}
}
