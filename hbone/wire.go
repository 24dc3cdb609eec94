package hbone

import (
	"net"
	"sync"
)

// maxUnproven bounds what a peer may send before it has proved who it is.
const maxUnproven = 64 << 10

// wire is the connection below TLS. crypto/tls makes one system call or two for each record; wire makes one for
// several, and owns a buffer only while bytes are in it.
type wire struct {
	net.Conn
	pool *buffers

	// of the reading side
	in      *buffer
	pending []byte // of in
	full    bool   // the last read filled its buffer, so more is likely there
	proven  bool
	unread  int // bytes before the peer was proven

	mu     sync.Mutex // guards below
	corked bool
	held   *buffer
	n      int // bytes in held
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.pending) == 0 {
		if !w.full || len(p) >= bulkSize {
			n, err := w.Conn.Read(p)
			w.full = n == len(p)
			return n, w.count(n, err)
		}
		w.in = w.pool.takeBulk()
		n, err := w.Conn.Read(w.in.b)
		if err = w.count(n, err); err != nil && n == 0 {
			w.letGo()
			return 0, err
		}
		w.full = n == len(w.in.b)
		w.pending = w.in.b[:n]
	}
	n := copy(p, w.pending)
	if w.pending = w.pending[n:]; len(w.pending) == 0 {
		w.letGo()
	}
	return n, nil
}

func (w *wire) letGo() {
	w.in.release()
	w.in, w.pending = nil, nil
}

func (w *wire) count(n int, err error) error {
	if !w.proven {
		if w.unread += n; w.unread > maxUnproven {
			return errTooMuch
		}
	}
	return err
}

// Write keeps what it is given while the wire is corked.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.corked {
		return w.Conn.Write(p)
	}
	done := 0
	for len(p) > 0 {
		if w.held == nil {
			w.held = w.pool.takeCork()
		}
		m := copy(w.held.b[w.n:], p)
		w.n, done, p = w.n+m, done+m, p[m:]
		if w.n == len(w.held.b) {
			if err := w.flushLocked(); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// cork makes Write collect.
func (w *wire) cork() {
	w.mu.Lock()
	w.corked = true
	w.mu.Unlock()
}

// uncork sends what was collected.
func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corked = false
	return w.flushLocked()
}

func (w *wire) flushLocked() error {
	if w.held == nil {
		return nil
	}
	_, err := w.Conn.Write(w.held.b[:w.n])
	w.held.release()
	w.held, w.n = nil, 0
	return err
}
