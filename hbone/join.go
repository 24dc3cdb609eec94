package hbone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

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
	// Opened is called during Join, once both ends stand: at once, unless Join has to wait for a hop. It must not wait.
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
	j := &joining{t: t, app: app, tunnel: tunnel}
	brittle(app)
	brittle(tunnel)
	if s, ok := tunnel.(*Stream); ok {
		j.asked = s.opening
	}
	stop := context.AfterFunc(ctx, func() { j.fail(context.Cause(ctx)) })
	tcp, ok := app.(*net.TCPConn)
	s, tunnelled := tunnel.(*Stream)
	if ok && tunnelled {
		j.direct(ctx, s, tcp)
	} else {
		j.copies(ctx)
	}
	j.wg.Wait()
	stop()
	if j.asked != nil {
		j.tunnel = j.asked.current()
	}
	mellow(app)
	mellow(j.tunnel)
	j.once.Do(func() { j.first = errors.Join(app.Close(), j.tunnel.Close()) })
	if j.first != nil {
		// Closing again is harmless, and needed where a break was let pass.
		_, _ = app.Close(), j.tunnel.Close()
	}
	return Result{Sent: t.Sent.Load(), Received: t.Received.Load(), Err: j.first}
}

// brittle makes a socket break if we die: the kernel would end it properly, and a transfer that was cut would look
// complete.
func brittle(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only on a socket that is gone
	}
}

// mellow makes a socket end properly again. What it has not sent yet would be lost otherwise.
func mellow(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(-1) // fails only on a socket that is gone
	}
}

// joining is a Join at work.
type joining struct {
	t           *Traffic
	app, tunnel net.Conn
	asked       *opening // the hop has not answered yet; nil: it has
	wg          sync.WaitGroup
	once        sync.Once
	first       error // why it did not end well

	appEnded, tunnelEnded atomic.Bool // they were told that nothing more comes for them
}

// fail breaks both sides.
func (j *joining) fail(err error) {
	j.once.Do(func() {
		j.first = err
		if j.asked != nil {
			j.asked.reset()
		} else {
			reset(j.tunnel)
		}
		reset(j.app)
	})
}

// settle waits until the tunnel stands.
func (j *joining) settle(ctx context.Context) (net.Conn, bool) {
	if j.asked == nil {
		if j.t.Opened != nil {
			j.t.Opened()
		}
		return j.tunnel, true
	}
	s, err := j.asked.settle(ctx)
	if err != nil {
		j.fail(err)
	} else if j.t.Opened != nil {
		j.t.Opened()
	}
	j.asked.finish(err, &j.t.Sent)
	return s, err == nil
}

// whenSettled has stands called once the hop has answered that the tunnel stands. It takes no goroutine unless something is
// amiss.
func (j *joining) whenSettled(ctx context.Context, stands func(*Stream)) {
	s := j.asked.current()
	j.wg.Add(1)
	late := time.AfterFunc(time.Until(j.asked.until), s.unanswered)
	s.whenAnswered(func(well bool) {
		defer j.wg.Done()
		late.Stop()
		if !well {
			if to, ok := j.settle(ctx); ok {
				stands(to.(*Stream))
			}
			return
		}
		if j.t.Opened != nil {
			j.t.Opened()
		}
		stands(s)
		j.asked.finish(nil, &j.t.Sent)
	})
}

// words sends what the application says before the hop has answered, and gives the tunnel that stands then.
func (j *joining) words() (net.Conn, bool) {
	if j.asked == nil {
		return j.tunnel, true
	}
	err := j.asked.firstWords(j.app, &j.t.Sent)
	if tcp, ok := j.app.(*net.TCPConn); ok && err == nil && !j.asked.isSettled() {
		err = readable(tcp) // it is most of the time when that has happened that somebody has to be woken anyway
	}
	var s *Stream
	if err == nil {
		s, err = j.asked.wait()
	}
	j.ended(err, nil, nil, "application to tunnel")
	return s, err == nil
}

// ended notes how a direction came to its end.
func (j *joining) ended(err error, src, dst net.Conn, what string) {
	if err == nil {
		return
	}
	if late(err, src, dst) {
		j.once.Do(func() { j.first = fmt.Errorf("%s: %w", what, err) })
		return
	}
	j.fail(fmt.Errorf("%s: %w", what, err))
}

// direct joins a stream with a socket: this goroutine carries what the application says, the one that reads the tunnel
// what comes back.
func (j *joining) direct(ctx context.Context, s *Stream, app *net.TCPConn) {
	raw, err := app.SyscallConn()
	if err != nil {
		j.fail(fmt.Errorf("application's socket: %w", err))
		return
	}
	listen := func(s *Stream) *joint {
		x := &joint{s: s, app: app, raw: raw, t: j.t, wg: &j.wg, fail: j.fail, ended: &j.appEnded}
		x.join()
		return x
	}
	var x *joint
	if j.asked == nil {
		j.settle(ctx)
		x = listen(s)
	} else {
		j.whenSettled(ctx, func(to *Stream) { x = listen(to) })
	}
	if to, ok := j.words(); ok {
		s = to.(*Stream)
		err := newSource(s, app, raw, &j.appEnded).copy(&j.t.Sent)
		if err == io.EOF {
			err = s.CloseWrite()
		}
		j.ended(err, app, s, "application to tunnel")
	}
	j.wg.Wait()
	if x != nil {
		x.leave()
	}
}

// copies joins any two connections, with a goroutine for each direction.
func (j *joining) copies(ctx context.Context) {
	carry := func(dst, src net.Conn, n *atomic.Int64, srcEnded, dstEnded *atomic.Bool, what string) {
		err := copyConn(dst, src, n)
		if tcp, ok := src.(*net.TCPConn); ok && err == nil {
			if raw, rerr := tcp.SyscallConn(); rerr == nil {
				if err = properEnd(tcp, raw, srcEnded); err == io.EOF {
					err = nil
				}
			}
		}
		if err == nil {
			dstEnded.Store(true)
			err = closeWrite(dst)
		}
		j.ended(err, src, dst, what)
	}
	j.wg.Go(func() {
		if to, ok := j.words(); ok {
			carry(to, j.app, &j.t.Sent, &j.appEnded, &j.tunnelEnded, "application to tunnel")
		}
	})
	if from, ok := j.settle(ctx); ok {
		carry(j.app, from, &j.t.Received, &j.tunnelEnded, &j.appEnded, "tunnel to application")
	}
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
	for {
		var err error
		chunks, err = s.take(chunks)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, x := range chunks {
			m := 0
			if err == nil {
				m, err = dst.Write(x.p)
			}
			n.Add(int64(m))
			s.gave(len(x.p))
			x.b.release()
		}
		clear(chunks)
		if err != nil {
			return err
		}
	}
}

// copyFrom sends what src has.
func (s *Stream) copyFrom(src net.Conn, n *atomic.Int64) error {
	for {
		if err := s.waitWindow(); err != nil {
			return err
		}
		b := s.c.pool.take(single)
		m, err := src.Read(b.b)
		sent, werr := s.Write(b.b[:m])
		n.Add(int64(sent))
		b.release()
		if werr != nil {
			return werr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
