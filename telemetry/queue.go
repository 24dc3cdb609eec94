package telemetry

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Queue writes lines of a log beside those who log: whoever reads the log may be slow or stuck, and connections must
// not be. It holds a bounded number of lines and drops what comes when it is full.
type Queue struct {
	// Lost is told how many lines were dropped, once there is room again. Nil tells nobody.
	Lost func(lines uint64)

	w     io.Writer
	lines chan []byte
	lost  atomic.Uint64
	bufs  sync.Pool // of *[]byte
	mu    sync.Mutex
	ended bool // guarded by mu: lines go straight to w
}

const (
	queuedLines = 4096     // about 2 MiB
	queueBatch  = 32 << 10 // bytes of one write, if as much waits
	// queueRest is how long Run rests after a write: lines that come fast leave together, and wake nobody one by one.
	queueRest = 5 * time.Millisecond
)

// NewQueue makes a queue; Run writes what it holds.
func NewQueue(w io.Writer) *Queue {
	return &Queue{w: w, lines: make(chan []byte, queuedLines), bufs: sync.Pool{New: func() any { return new([]byte) }}}
}

// Write takes a line and does not wait.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return q.w.Write(line)
	}
	b, ok := q.bufs.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	select {
	case q.lines <- append((*b)[:0], line...):
	default:
		q.lost.Add(1)
	}
	return len(line), nil
}

// Run writes until ctx ends, and then what is left. A writer that fails loses what it was given: there is nowhere to
// say so.
func (q *Queue) Run(ctx context.Context) error {
	var batch []byte
	rest := time.NewTimer(queueRest)
	defer rest.Stop()
	for {
		select {
		case line := <-q.lines:
			batch = q.batch(batch[:0], line)
			_, _ = q.w.Write(batch)
			rest.Reset(queueRest)
			select {
			case <-rest.C:
			case <-ctx.Done():
			}
		case <-ctx.Done():
			q.end()
			return nil
		}
		if n := q.lost.Swap(0); n > 0 && q.Lost != nil {
			q.Lost(n)
		}
	}
}

// batch gathers what waits already.
func (q *Queue) batch(to, line []byte) []byte {
	for {
		to = append(to, line...)
		done := line
		q.bufs.Put(&done)
		if len(to) >= queueBatch {
			return to
		}
		select {
		case line = <-q.lines:
		default:
			return to
		}
	}
}

// end writes what is left; later lines are written at once.
func (q *Queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	for {
		select {
		case line := <-q.lines:
			_, _ = q.w.Write(line)
		default:
			return
		}
	}
}
