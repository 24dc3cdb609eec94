package hbone

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
)

// joint is a stream joined with an application's socket. The goroutine that reads the tunnel writes to the socket, without
// waiting; only what the socket does not take at once gets a goroutine, until it is delivered. The other direction has the
// goroutine of Join.
type joint struct {
	s    *Stream
	app  *net.TCPConn
	raw  syscall.RawConn
	t    *Traffic
	wg   *sync.WaitGroup // holds one until nothing more will be delivered
	fail func(error)
	// ended: the application was told that nothing more comes for it
	ended *atomic.Bool

	pieces [][]byte // to deliver; of the goroutine that reads the tunnel
	late   []chunk  // to deliver; of the one that pumps

	// guarded by the carrier's lock
	arrived bool // in the carrier's list
	pumping bool // what comes now has to wait in the stream's queue
	over    bool // nothing more will be delivered
}

// join makes the stream deliver to the socket from now on. What waits already is delivered first.
func (j *joint) join() {
	j.wg.Add(1)
	s := j.s
	s.c.mu.Lock()
	s.joint = j
	if s.err != nil && !s.ended {
		j.brokenLocked(s.err)
	} else {
		j.pumping = s.queued > 0 || s.ended
	}
	pumping := j.pumping
	s.c.mu.Unlock()
	if pumping && !j.pump(func(p [][]byte) (int, error) { return new(delivery).send(j.app, j.raw, p) }) {
		j.wg.Go(j.pumpAll)
	}
}

// leave ends what join began, when both directions are over: all that was delivered is counted then.
func (j *joint) leave() {
	j.s.c.mu.Lock()
	defer j.s.c.mu.Unlock()
	j.s.joint = nil
	for j.arrived {
		j.s.canRead.Wait()
	}
}

// takeLocked takes a piece for the delivery that follows, unless pieces before it still wait.
func (j *joint) takeLocked(p []byte) bool {
	if j.pumping || j.over || j.s.closed {
		return false
	}
	j.pieces = append(j.pieces, p)
	j.listLocked()
	return true
}

func (j *joint) listLocked() {
	if !j.arrived {
		j.arrived = true
		j.s.c.arrived = append(j.s.c.arrived, j)
	}
}

// deliver writes what has arrived to the socket. What it does not take waits in the stream's queue.
func (j *joint) deliver() {
	s := j.s
	n, err := 0, error(nil)
	if len(j.pieces) > 0 {
		n, err = s.c.deliver.send(j.app, j.raw, j.pieces)
		j.t.Received.Add(int64(n))
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	j.arrived = false
	if s.joint != j {
		s.canRead.Broadcast()
	}
	left := n
	for _, p := range j.pieces {
		m := min(left, len(p))
		left -= m
		switch p = p[m:]; {
		case len(p) == 0:
		case err == nil && (s.err == nil || s.ended):
			s.pushLocked(p)
		default:
			s.c.eng.Consumed(s.id, len(p))
		}
	}
	clear(j.pieces)
	j.pieces = j.pieces[:0]
	if n > 0 {
		s.tookLocked(n)
	}
	switch {
	case j.pumping || j.over:
	case err != nil:
		j.failLocked(fmt.Errorf("tunnel to application: %w", err))
	case s.queued > 0:
		j.pumping = true
		j.wg.Go(j.pumpAll)
	case s.ended:
		j.finishLocked()
	}
}

// pumpAll delivers what waits, at the pace of the socket.
func (j *joint) pumpAll() {
	j.pump(func(p [][]byte) (int, error) {
		all := net.Buffers(p)
		n, err := all.WriteTo(j.app)
		return int(n), err
	})
}

// pump delivers what waits. It reports whether it is done: write took all of it, or failed.
func (j *joint) pump(write func([][]byte) (int, error)) bool {
	s := j.s
	var pieces [][]byte
	for {
		s.c.mu.Lock()
		if len(j.late) == 0 {
			j.late, s.queue = s.queue, j.late
			s.queued = 0
		}
		if len(j.late) == 0 {
			j.pumping, j.late = false, nil
			if s.ended && !j.over {
				j.finishLocked()
			}
			s.c.mu.Unlock()
			return true
		}
		s.c.mu.Unlock()
		pieces = pieces[:0]
		for i := range j.late {
			pieces = append(pieces, j.late[i].p)
		}
		n, err := write(pieces)
		j.t.Received.Add(int64(n))
		j.late = eat(j.late, n)
		s.c.mu.Lock()
		s.tookLocked(n)
		if err != nil {
			for _, x := range j.late {
				n += len(x.p)
				s.c.eng.Consumed(s.id, len(x.p))
				x.b.release()
			}
			j.late, j.pumping = nil, false
			if !j.over {
				j.failLocked(fmt.Errorf("tunnel to application: %w", err))
			}
		}
		s.c.mu.Unlock()
		if err != nil {
			return true
		}
		if len(j.late) > 0 {
			return false
		}
	}
}

// eat takes n bytes off the front of chunks.
func eat(chunks []chunk, n int) []chunk {
	gone := 0
	for i := range chunks {
		x := &chunks[i]
		m := min(n, len(x.p))
		n, x.p = n-m, x.p[m:]
		if len(x.p) > 0 {
			break
		}
		x.b.release()
		gone++
	}
	left := copy(chunks, chunks[gone:])
	clear(chunks[left:])
	return chunks[:left]
}

// finishLocked passes the peer's end on: nothing more will be delivered. If the stream was cut meanwhile, what it still held was
// thrown away, and the end is no proper one.
func (j *joint) finishLocked() {
	if j.s.closed {
		j.failLocked(fmt.Errorf("tunnel to application: %w", net.ErrClosed))
		return
	}
	j.over = true
	j.ended.Store(true)
	if err := j.app.CloseWrite(); err != nil { // a system call that does not wait
		j.wg.Go(func() { j.fail(fmt.Errorf("tunnel to application: %w", err)) })
	}
	j.wg.Done()
}

// failLocked ends the delivery: nothing more will be delivered.
func (j *joint) failLocked(err error) {
	j.over = true
	go func() { // it closes the socket, and waits for those who use it
		j.fail(err)
		j.wg.Done()
	}()
}

// brokenLocked is called when the stream is. After the peer's end, what came before is delivered nevertheless.
func (j *joint) brokenLocked(err error) {
	switch {
	case !j.over && !j.s.ended:
		j.failLocked(fmt.Errorf("tunnel to application: %w", err))
	case j.over:
		if e, ok := errors.AsType[*ResetError](err); ok && e.Code == h2.NoError.String() {
			return // it takes no more: whoever sends will notice
		}
		go j.fail(err)
	}
}
