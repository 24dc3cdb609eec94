package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/node/internal/objects"
)

// Retry of a pod that could not be brought where it belongs doubles between these.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 15 * time.Second
)

// workers is how many pods are worked on at once: most of the time of each is the API server's and the node proxy's.
const workers = 8

// queue holds pods to look at, each once, and those that failed until their next try.
type queue struct {
	mu      sync.Mutex // guards below
	waiting map[objects.Key]bool
	running map[objects.Key]bool // not given out again until done, so that a slow pod takes one worker only
	order   []objects.Key
	failed  map[objects.Key]time.Duration
	wake    chan struct{}
}

func newQueue() *queue {
	return &queue{
		waiting: map[objects.Key]bool{}, running: map[objects.Key]bool{}, failed: map[objects.Key]time.Duration{},
		wake: make(chan struct{}, workers),
	}
}

// put asks for a look at a pod; it never blocks.
func (q *queue) put(k objects.Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting[k] {
		return
	}
	q.waiting[k] = true
	if !q.running[k] {
		q.orderLocked(k)
	}
}

func (q *queue) orderLocked(k objects.Key) {
	q.order = append(q.order, k)
	select {
	case q.wake <- struct{}{}:
	default: // enough are awake already
	}
}

func (q *queue) take() (objects.Key, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return objects.Key{}, false
	}
	k := q.order[0]
	q.order = q.order[1:]
	delete(q.waiting, k)
	q.running[k] = true
	return k, true
}

// done ends the work on a pod and says how long to wait before a failed one is tried again.
func (q *queue) done(k objects.Key, err error) (retry time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.running, k)
	if q.waiting[k] {
		q.orderLocked(k)
	}
	if err == nil {
		delete(q.failed, k)
		return 0
	}
	d := min(max(q.failed[k]*2, retryMin), retryMax)
	q.failed[k] = d
	return d
}

// run works on pods until ctx ends. f says when the pod wants to be looked at again, 0 for only when it changes.
func (q *queue) run(ctx context.Context, log *slog.Logger, f func(context.Context, objects.Key) (again time.Duration, err error)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range workers {
		wg.Go(func() {
			for {
				k, ok := q.take()
				if !ok {
					select {
					case <-ctx.Done():
						return
					case <-q.wake:
						continue
					}
				}
				again, err := f(ctx, k)
				retry := q.done(k, err)
				if ctx.Err() != nil {
					return
				}
				if retry > 0 {
					log.Warn("pod is not where it belongs, will retry", "pod", k.String(), "error", err, "retry", retry.String())
					again = retry
				}
				if again > 0 {
					wg.Go(func() {
						select {
						case <-ctx.Done():
						case <-time.After(again):
							q.put(k)
						}
					})
				}
			}
		})
	}
	<-ctx.Done()
	return nil
}
