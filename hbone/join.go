package hbone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
)

// Result is what a joined pair of connections has carried.
type Result struct {
	Sent     int64 // from the application into the tunnel
	Received int64 // from the tunnel to the application
	Err      error // why it did not end well; nil if both sides ended
}

// Traffic counts the bytes of a joined pair while it lasts.
type Traffic struct {
	Sent, Received atomic.Int64
	// Opened is called, in the goroutine of Join, once both ends stand: at once, unless Join has to wait for a hop.
	Opened func()
}

// Join carries bytes between an application's socket and a tunnel until both directions have ended, one of them breaks,
// or ctx ends, and closes both. The end of one direction is passed on and leaves the other open. A break on one side is
// passed on as a reset, never as an end, so that a transfer which was cut does not look complete.
func Join(ctx context.Context, app, tunnel net.Conn) Result {
	return new(Traffic).Join(ctx, app, tunnel)
}

// Join is the package's Join, with the count kept in t.
func (t *Traffic) Join(ctx context.Context, app, tunnel net.Conn) Result {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
		asked *opening
	)
	if s, ok := tunnel.(*Stream); ok {
		asked = s.opening
	}
	fail := func(err error) {
		once.Do(func() {
			first = err
			reset(app)
			if asked != nil {
				asked.reset()
			} else {
				reset(tunnel)
			}
		})
	}
	stop := context.AfterFunc(ctx, func() { fail(context.Cause(ctx)) })
	carry := func(dst, src net.Conn, n *atomic.Int64, what string) {
		err := copyConn(dst, src, n)
		if err == nil {
			err = closeWrite(dst)
		}
		if err != nil && !late(err, src, dst) {
			fail(fmt.Errorf("%s: %w", what, err))
		} else if err != nil {
			once.Do(func() { first = fmt.Errorf("%s: %w", what, err) })
		}
	}
	wg.Go(func() {
		to := tunnel
		if asked != nil {
			s, err := asked.firstWords(app, &t.Sent)
			if err != nil {
				fail(fmt.Errorf("application to tunnel: %w", err))
				return
			}
			to = s
		}
		carry(to, app, &t.Sent, "application to tunnel")
	})
	from, err := tunnel, error(nil)
	if asked != nil {
		if from, err = asked.settle(ctx); err != nil {
			fail(err)
		}
		asked.finish(err)
	}
	if err == nil {
		if t.Opened != nil {
			t.Opened()
		}
		carry(app, from, &t.Received, "tunnel to application")
	}
	wg.Wait()
	stop()
	if asked != nil {
		tunnel = asked.current()
	}
	once.Do(func() { first = errors.Join(app.Close(), tunnel.Close()) })
	if first != nil {
		// Closing again is harmless, and needed where a break was let pass.
		_, _ = app.Close(), tunnel.Close()
	}
	return Result{Sent: t.Sent.Load(), Received: t.Received.Load(), Err: first}
}

// late reports whether err is a peer's refusal of more data after it had sent everything itself: then what it has sent
// is still delivered.
func late(err error, src, dst net.Conn) bool {
	s, ok := dst.(*Stream)
	if !ok {
		return false
	}
	e, ok := errors.AsType[*ResetError](err)
	if !ok || !e.Peer || e.Code != h2.NoError.String() {
		return false
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.ended
}

// reset closes a connection so that its peer sees a break.
func reset(c net.Conn) {
	switch x := c.(type) {
	case *Stream:
		x.Reset()
		return
	case interface{ SetLinger(int) error }:
		_ = x.SetLinger(0) // fails only on a socket that is gone
	}
	_ = c.Close() // it ends in any case
}

// closeWrite passes on the end of a direction.
func closeWrite(c net.Conn) error {
	if x, ok := c.(interface{ CloseWrite() error }); ok {
		return x.CloseWrite()
	}
	return nil // it ends when both directions have
}

// copyConn carries one direction to its end.
func copyConn(dst, src net.Conn, n *atomic.Int64) error {
	if s, ok := src.(*Stream); ok {
		return s.copyTo(dst, n)
	}
	if s, ok := dst.(*Stream); ok {
		return s.copyFrom(src, n)
	}
	return splice(dst, src, n)
}

// splicePiece is how much is carried between two looks at the count.
const splicePiece = 1 << 20

// splice lets the kernel carry the bytes where it can.
func splice(dst, src net.Conn, n *atomic.Int64) error {
	for {
		m, err := io.CopyN(dst, src, splicePiece)
		n.Add(m)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copyTo writes what arrives to dst. The peer may send more when dst has taken it.
func (s *Stream) copyTo(dst io.Writer, n *atomic.Int64) error {
	var chunks []chunk
	var pieces, rest net.Buffers
	for {
		var err error
		chunks, err = s.take(chunks)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		all := pieces[:0]
		for i := range chunks {
			all = append(all, chunks[i].p)
		}
		rest = all // WriteTo eats its receiver
		m, err := rest.WriteTo(dst)
		n.Add(m)
		total := 0
		for i := range chunks {
			total += len(chunks[i].p)
			chunks[i].b.release()
			chunks[i] = chunk{}
		}
		clear(all)
		pieces = all
		s.gave(total)
		if err != nil {
			return err
		}
	}
}

// copyFrom sends what src has. It takes a buffer only when there is something to read and the peer's window is open.
func (s *Stream) copyFrom(src net.Conn, n *atomic.Int64) error {
	r := newReader(src, &s.c.pool.bulk)
	for {
		if err := s.waitWindow(); err != nil {
			return err
		}
		b, m, err := r.read(h2.FrameHeaderLen)
		if m > 0 {
			var sent int
			sent, werr := s.send(b.b[h2.FrameHeaderLen:h2.FrameHeaderLen+m], b.b)
			n.Add(int64(sent))
			if werr != nil {
				b.release()
				return werr
			}
		}
		if b != nil {
			b.release()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
