package hbone

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
	"github.com/ambit-mesh/ambit/identity"
)

// Stream is one end of a tunnel: a net.Conn that half-closes and resets as TCP does.
type Stream struct {
	c       *carrier
	id      uint32
	opening *opening // of a tunnel that Open returned: for Join
	joint   *joint   // with an application's socket

	// guarded by the carrier's lock
	canRead, canWrite sync.Cond
	queue             []chunk
	queued            int // bytes in queue
	status            int
	header            http.Header
	ended             bool // the peer will send no more
	sentEnd           bool
	err               error // why the stream is broken
	closed            bool  // Close was called
	closedAt          time.Time
	readBy, writeBy   deadline
	cancel            context.CancelCauseFunc // of the handler's context
	answer            func(stands bool)       // for the one who waits for the answer; it is called once, without the lock
}

// chunk is received data at the front of a buffer.
type chunk struct {
	p []byte
	b *buffer
}

// Peer is who is at the other end of the connection that carries the stream, as proved by its certificate.
func (s *Stream) Peer() identity.ID { return s.c.peer }

// Header is what the peer sent when it opened or accepted the tunnel.
func (s *Stream) Header() http.Header { return s.header }

// LocalAddr and RemoteAddr are of the connection that carries the stream.
func (s *Stream) LocalAddr() net.Addr { return s.c.localAddr() }

// RemoteAddr is where the connection that carries the stream leads.
func (s *Stream) RemoteAddr() net.Addr { return s.c.remoteAddr() }

// pushLocked queues data. It is copied, so that what is held is about what is counted.
func (s *Stream) pushLocked(p []byte) {
	if s.closed { // Close was called: as TCP does, tell a peer who sends on
		s.c.eng.Consumed(s.id, len(p))
		s.abortLocked(h2.Cancel, "data after close")
		return
	}
	if s.queued == 0 {
		s.canRead.Broadcast()
	}
	s.queued += len(p)
	if n := len(s.queue); n > 0 {
		last := &s.queue[n-1]
		m := min(len(p), cap(last.p)-len(last.p))
		last.p, p = append(last.p, p[:m]...), p[m:]
	}
	for len(p) > 0 {
		size := single
		if s.queued <= small.size() {
			size = small
		}
		x := s.c.pool.take(size)
		m := min(len(p), len(x.b))
		s.queue = append(s.queue, chunk{p: append(x.b[:0], p[:m]...), b: x})
		p = p[m:]
	}
}

func (s *Stream) endedLocked(ended bool) {
	if ended {
		s.ended = true
		s.canRead.Broadcast()
		if s.sentEnd {
			s.c.forgetLocked(s)
		}
	}
}

// failLocked breaks the stream. What came before a proper end can still be read; otherwise nothing can, because a
// transfer that was cut must not look complete.
func (s *Stream) failLocked(err error) {
	if s.err == nil {
		s.err = err
	}
	if !s.ended {
		s.dropLocked()
	}
	if s.cancel != nil {
		s.cancel(err)
	}
	if f := s.answer; f != nil {
		s.answer = nil
		go f(false)
	}
	s.canRead.Broadcast()
	s.canWrite.Broadcast()
	s.c.forgetLocked(s)
	if s.joint != nil {
		s.joint.brokenLocked(err)
	}
}

// dropLocked throws away what was received.
func (s *Stream) dropLocked() {
	for i := range s.queue {
		s.queue[i].b.release()
		s.queue[i] = chunk{}
	}
	s.queue = s.queue[:0]
	s.c.eng.Consumed(s.id, s.queued)
	s.queued = 0
}

// abortLocked resets the stream.
func (s *Stream) abortLocked(code h2.Code, why string) {
	s.c.eng.Reset(s.id, code)
	s.c.kickLocked()
	s.failLocked(&ResetError{Code: code.String(), Why: why})
}

// waitReadLocked waits until there is something to read or to report.
func (s *Stream) waitReadLocked() error {
	for {
		switch {
		case s.closed:
			return net.ErrClosed
		case s.readBy.passed():
			return os.ErrDeadlineExceeded
		case s.queued > 0:
			return nil
		case s.ended:
			return io.EOF
		case s.err != nil:
			return s.err
		}
		s.canRead.Wait()
	}
}

// Read takes what the peer sent. io.EOF means that the peer ended its direction; a tunnel that was cut never gives it.
func (s *Stream) Read(p []byte) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.waitReadLocked(); err != nil {
		return 0, err
	}
	n := 0
	for n < len(p) && len(s.queue) > 0 {
		first := &s.queue[0]
		m := copy(p[n:], first.p)
		n += m
		if first.p = first.p[m:]; len(first.p) > 0 {
			break
		}
		first.b.release()
		s.queue = append(s.queue[:0], s.queue[1:]...)
	}
	s.queued -= n
	s.tookLocked(n)
	return n, nil
}

func (s *Stream) tookLocked(n int) {
	s.c.eng.Consumed(s.id, n)
	if s.c.eng.Out() > 0 {
		s.c.kickLocked()
	}
}

// take gives all that waits to be read, into chunks. Whoever wrote it on calls gave.
func (s *Stream) take(chunks []chunk) ([]chunk, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.waitReadLocked(); err != nil {
		return chunks, err
	}
	taken := s.queue
	s.queue, s.queued = chunks[:0], 0
	return taken, nil
}

// gave tells that n taken bytes have found their receiver.
func (s *Stream) gave(n int) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.tookLocked(n)
}

// Write sends to the peer. It blocks while the peer's window is full.
func (s *Stream) Write(p []byte) (int, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := 0
	for len(p) > 0 {
		if err := s.waitWriteLocked(); err != nil {
			return sent, err
		}
		n := c.eng.Reserve(s.id, min(len(p), middle.payload()))
		b := c.pool.take(classFor(n))
		c.sendLocked(b, b.fill(s.id, p[:n]))
		sent, p = sent+n, p[n:]
	}
	return sent, nil
}

// waitWriteLocked waits until something can be sent.
func (s *Stream) waitWriteLocked() error {
	for {
		switch {
		case s.err != nil:
			return s.err
		case s.sentEnd:
			return net.ErrClosed
		case s.writeBy.passed():
			return os.ErrDeadlineExceeded
		case s.c.eng.Window(s.id) == 0:
			s.canWrite.Wait()
		case s.c.backlogLocked() >= maxQueued:
			s.c.room.Wait()
		default:
			return nil
		}
	}
}

// waitWindow waits until something can be sent, before the sender takes a buffer.
func (s *Stream) waitWindow() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.waitWriteLocked()
}

// reserve takes up to n bytes out of the peer's windows; nothing if the stream has to wait.
func (s *Stream) reserve(n int) int {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.err != nil || s.sentEnd || s.c.backlogLocked() >= maxQueued {
		return 0
	}
	return s.c.eng.Reserve(s.id, n)
}

// unreserve gives back what was not used.
func (s *Stream) unreserve(n int) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.unreserveLocked(n)
}

func (s *Stream) unreserveLocked(n int) {
	if s.c.eng.Unreserve(s.id, n) {
		s.c.wakeLocked()
	}
}

// sendReserved sends n bytes that are in place in b, which it takes over, and gives back what was reserved beyond that.
func (s *Stream) sendReserved(b *buffer, n, beyond int) error {
	size := b.frame(s.id, n)
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.err != nil {
		s.unreserveLocked(n + beyond)
		b.release()
		return s.err
	}
	s.unreserveLocked(beyond)
	s.c.sendLocked(b, size)
	return nil
}

// CloseWrite ends our direction. What was written before arrives.
func (s *Stream) CloseWrite() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.closeWriteLocked()
}

func (s *Stream) closeWriteLocked() error {
	if s.sentEnd || s.err != nil {
		return s.err
	}
	s.sentEnd = true
	s.c.eng.SendEnd(s.id)
	s.canWrite.Broadcast()
	s.c.flushLocked()
	if s.ended {
		s.c.forgetLocked(s)
	}
	return nil
}

// Close ends the stream as closing a TCP socket does: what was written arrives; with data unread, or if the peer
// sends on, the peer sees a reset.
func (s *Stream) Close() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed, s.closedAt = true, time.Now()
	s.canRead.Broadcast()
	if s.err == nil && s.queued > 0 {
		s.abortLocked(h2.Cancel, "closed with data unread")
	}
	s.dropLocked()
	if s.err == nil {
		if err := s.closeWriteLocked(); err != nil {
			return err
		}
	}
	return nil
}

// Reset cuts the stream: the peer sees a reset, never an end.
func (s *Stream) Reset() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.err == nil && !(s.ended && s.sentEnd) {
		s.abortLocked(h2.Cancel, "")
	}
	s.closed = true
	s.dropLocked()
	s.canRead.Broadcast()
}

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t) // neither fails
	return s.SetWriteDeadline(t)
}

// SetReadDeadline ends a Read at t.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.readBy.set(t, &s.canRead)
	return nil
}

// SetWriteDeadline ends a Write that waits for the peer's window at t.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.writeBy.set(t, &s.canWrite, &s.c.room)
	return nil
}

// deadline is a time and what wakes those who must notice it.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(t time.Time, wake ...*sync.Cond) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	all := func() {
		for _, c := range wake {
			c.Broadcast()
		}
	}
	if left := time.Until(t); !t.IsZero() && left > 0 {
		d.timer = time.AfterFunc(left, func() {
			wake[0].L.Lock()
			defer wake[0].L.Unlock()
			all()
		})
	}
	all()
}
