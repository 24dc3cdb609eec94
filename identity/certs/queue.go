package certs

import (
	"context"
	"sync"
	"time"
)

// queue lets a bounded number of requests run at once: those that somebody waits for before those in the background.
type queue struct {
	mu      sync.Mutex // guards below
	cond    *sync.Cond
	free    int
	urgent  int // entries that somebody waits for and that want to enter
	raised  map[*entry]chan struct{}
	ctx     context.Context // nil until run
	pending []func()
	wg      sync.WaitGroup
	stopped bool
}

func newQueue(parallel int) *queue {
	q := &queue{free: parallel, raised: map[*entry]chan struct{}{}}
	q.cond = sync.NewCond(&q.mu)
	return q
}

// start runs f while the queue runs; before that it is kept.
func (q *queue) start(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.stopped:
	case q.ctx == nil:
		q.pending = append(q.pending, f)
	default:
		q.wg.Go(f)
	}
}

func (q *queue) run(ctx context.Context) {
	q.mu.Lock()
	q.ctx = ctx
	for _, f := range q.pending {
		q.wg.Go(f)
	}
	q.pending = nil
	q.mu.Unlock()
	<-ctx.Done()
	q.mu.Lock()
	q.stopped = true
	for _, r := range q.raised {
		close(r)
	}
	clear(q.raised)
	q.cond.Broadcast()
	q.mu.Unlock()
	q.wg.Wait()
}

// raise says that somebody waits for e: its request goes before others, and a retry is not waited out.
func (q *queue) raise(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r, ok := q.raised[e]; ok {
		close(r)
		delete(q.raised, e)
	}
	q.cond.Broadcast()
}

// enter waits for a place. It returns false when the queue stops or e is forgotten.
func (q *queue) enter(e *entry) bool {
	stop := context.AfterFunc(e.ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.cond.Broadcast()
	})
	defer stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	marked := false
	defer func() {
		if marked {
			q.urgent--
			q.cond.Broadcast()
		}
	}()
	for {
		if q.stopped || e.ctx.Err() != nil {
			return false
		}
		if !marked && e.urgent.Load() > 0 {
			marked = true
			q.urgent++
		}
		if q.free > 0 && (marked || q.urgent == 0) {
			q.free--
			return true
		}
		q.cond.Wait()
	}
}

func (q *queue) exit() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free++
	q.cond.Broadcast()
}

// raisedRetry is how long the next request for an identity waits at least although somebody waits for it.
const raisedRetry = time.Second

// wait waits for d, or until somebody waits for e: after a failure, or because the clock jumped past the end of its
// certificate. It returns false when there is no more to do.
func (q *queue) wait(e *entry, d time.Duration) bool {
	raised, ok := q.raisable(e)
	if !ok {
		return false
	}
	defer q.settled(e)
	t := time.NewTimer(d)
	defer t.Stop()
	floor := time.NewTimer(min(d, raisedRetry))
	defer floor.Stop()
	select {
	case <-e.ctx.Done():
		return false
	case <-q.ctx.Done():
		return false
	case <-floor.C:
	}
	if e.urgent.Load() > 0 { // counted before raise, so whoever raised too early for our channel is seen here
		return true
	}
	select {
	case <-e.ctx.Done():
		return false
	case <-q.ctx.Done():
		return false
	case <-t.C:
	case <-raised:
	}
	return true
}

// raisable gives the channel that raise closes.
func (q *queue) raisable(e *entry) (<-chan struct{}, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped {
		return nil, false
	}
	raised := make(chan struct{})
	q.raised[e] = raised
	return raised, true
}

func (q *queue) settled(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.raised, e)
}
