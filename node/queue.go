package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/node/internal/podwatch"
)

// Retry of a pod that could not be brought where it belongs doubles between these.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 15 * time.Second
)

// workers is how many pods are worked on at once.
const workers = 4

// queue holds pods to look at, each once, and those that failed until their next try.
type queue struct {
	mu      sync.Mutex // guards below
	waiting map[podwatch.Key]bool
	order   []podwatch.Key
	failed  map[podwatch.Key]time.Duration
	wake    chan struct{}
}

func newQueue() *queue {
	return &queue{waiting: map[podwatch.Key]bool{}, failed: map[podwatch.Key]time.Duration{}, wake: make(chan struct{}, workers)}
}

// put asks for a look at a pod; it never blocks.
func (q *queue) put(k podwatch.Key) {
	q.mu.Lock()
	if !q.waiting[k] {
		q.waiting[k] = true
		q.order = append(q.order, k)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) take() (podwatch.Key, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return podwatch.Key{}, false
	}
	k := q.order[0]
	q.order = q.order[1:]
	delete(q.waiting, k)
	return k, true
}

// next is how long to wait before a pod is tried again.
func (q *queue) next(k podwatch.Key, err error) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil {
		delete(q.failed, k)
		return 0
	}
	d := min(max(q.failed[k]*2, retryMin), retryMax)
	q.failed[k] = d
	return d
}

// run works on pods until ctx ends.
func (q *queue) run(ctx context.Context, log *slog.Logger, f func(context.Context, podwatch.Key) error) error {
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
				err := f(ctx, k)
				if ctx.Err() != nil {
					return
				}
				if wait := q.next(k, err); wait > 0 {
					log.Warn("pod is not where it belongs, will retry", "pod", k.String(), "error", err, "retry", wait.String())
					wg.Go(func() {
						select {
						case <-ctx.Done():
						case <-time.After(wait):
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
