// Package memnet is a network in memory for tests: its connections half-close, reset and time out as TCP's do.
package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Buffer is how many bytes one direction of a connection holds before writes block.
const Buffer = 64 << 10

// Listener accepts what its Dial makes. It works inside synctest bubbles.
type Listener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex // guards below
	port uint16     // of the last client
}

// Listen makes a listener that calls itself by the given address, such as "10.0.0.1:15008".
func Listen(addr string) *Listener {
	return &Listener{
		addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)), conns: make(chan net.Conn, 128), closed: make(chan struct{}), port: 40000,
	}
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close refuses connections from now on.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is the address given to Listen.
func (l *Listener) Addr() net.Addr { return l.addr }

// Dial connects to the listener.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	l.port++
	from := &net.TCPAddr{IP: net.IPv4(10, 99, 0, 1), Port: int(l.port)}
	l.mu.Unlock()
	a, b := pair(from, l.addr)
	select {
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: l.addr, Err: syscall.ECONNREFUSED}
	default:
	}
	select {
	case l.conns <- b:
		return a, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: l.addr, Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Pipe gives both ends of a connection.
func Pipe() (*Conn, *Conn) {
	return pair(&net.TCPAddr{IP: net.IPv4(10, 99, 0, 1), Port: 1}, &net.TCPAddr{IP: net.IPv4(10, 99, 0, 2), Port: 2})
}

func pair(a, b net.Addr) (*Conn, *Conn) {
	ab, ba := newHalf(), newHalf()
	return &Conn{in: ba, out: ab, local: a, remote: b}, &Conn{in: ab, out: ba, local: b, remote: a}
}

// Conn is one end of a connection.
type Conn struct {
	in, out       *half
	local, remote net.Addr
	abort         bool
}

// Read takes what the other end wrote; io.EOF after its CloseWrite or Close.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write blocks while the buffer is full.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// CloseWrite ends this direction only.
func (c *Conn) CloseWrite() error { c.out.end(); return nil }

// SetLinger makes Close reset the connection if sec is 0, as TCP does.
func (c *Conn) SetLinger(sec int) error { c.abort = sec == 0; return nil }

// Close ends both directions. With unread input, or after SetLinger(0), the other end sees a reset.
func (c *Conn) Close() error {
	if c.in.unread() > 0 || c.abort {
		c.in.fail(net.ErrClosed, syscall.ECONNRESET)
		c.out.fail(syscall.ECONNRESET, net.ErrClosed)
		return nil
	}
	c.in.fail(net.ErrClosed, syscall.EPIPE)
	c.out.end()
	return nil
}

// LocalAddr is this end's address.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end's address.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline ends a Read at t.
func (c *Conn) SetReadDeadline(t time.Time) error { c.in.deadline(&c.in.readBy, t); return nil }

// SetWriteDeadline ends a Write at t.
func (c *Conn) SetWriteDeadline(t time.Time) error { c.out.deadline(&c.out.writeBy, t); return nil }

// half is one direction.
type half struct {
	mu              sync.Mutex // guards below
	changed         *sync.Cond
	buf             []byte
	ended           bool
	readErr         error
	writeErr        error
	readBy, writeBy limit
}

// limit is a deadline; its timer wakes those who wait.
type limit struct {
	at    time.Time
	timer *time.Timer
}

func (l *limit) passed() bool { return !l.at.IsZero() && !time.Now().Before(l.at) }

func newHalf() *half {
	h := &half{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readErr != nil:
			return 0, h.readErr
		case h.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			if h.buf = h.buf[n:]; len(h.buf) == 0 {
				h.buf = nil
			}
			h.changed.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.writeErr != nil:
			return n, h.writeErr
		case h.ended:
			return n, net.ErrClosed
		case h.writeBy.passed():
			return n, os.ErrDeadlineExceeded
		case len(p) == 0:
			return n, nil
		}
		if room := Buffer - len(h.buf); room > 0 {
			m := min(room, len(p))
			h.buf = append(h.buf, p[:m]...)
			n, p = n+m, p[m:]
			h.changed.Broadcast()
			continue
		}
		h.changed.Wait()
	}
}

func (h *half) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.changed.Broadcast()
}

// fail ends a direction with what each side of it shall see; what was under way is lost.
func (h *half) fail(read, write error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readErr == nil {
		h.readErr = read
	}
	if h.writeErr == nil {
		h.writeErr = write
	}
	h.buf = nil
	h.changed.Broadcast()
}

func (h *half) unread() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.buf)
}

func (h *half) deadline(l *limit, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.at = t
	if d := time.Until(t); !t.IsZero() && d > 0 {
		l.timer = time.AfterFunc(d, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed.Broadcast()
		})
	}
	h.changed.Broadcast()
}
