package hbone

import (
	"encoding/binary"
	"net"
	"sync"

	"github.com/ambit-mesh/ambit/hbone/internal/record"
)

// maxUnproven bounds what a peer may send before it has proved who it is.
const maxUnproven = 64 << 10

// wire is the connection below crypto/tls. It reads ahead into a buffer that it owns only while bytes are in it, but
// gives no byte beyond the record that is being read, so that after the handshake nothing of the next one is inside
// crypto/tls.
type wire struct {
	net.Conn
	pool *buffers

	// of the reading side
	in      *buffer
	pending []byte // of in
	size    sizer
	header  [record.HeaderLen]byte
	got     int // bytes of header
	left    int // bytes of the record behind it
	proven  bool
	unread  int // bytes before the peer was proven

	mu     sync.Mutex // guards below
	corked bool
	held   *buffer
	n      int // bytes in held
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.pending) == 0 {
		if err := w.fill(); err != nil {
			return 0, err
		}
	}
	limit := w.left
	if limit == 0 {
		limit = len(w.header) - w.got
	}
	n := copy(p[:min(len(p), limit)], w.pending)
	if w.left > 0 {
		w.left -= n
	} else if w.got += copy(w.header[w.got:], w.pending[:n]); w.got == len(w.header) {
		w.left, w.got = int(binary.BigEndian.Uint16(w.header[3:])), 0
	}
	if w.pending = w.pending[n:]; len(w.pending) == 0 {
		w.letGo()
	}
	return n, nil
}

// fill waits for bytes.
func (w *wire) fill() error {
	b := w.pool.take(max(w.size.class, single))
	n, err := w.Conn.Read(b.b)
	if n == 0 {
		b.release()
		return err
	}
	w.in, w.pending = b, b.b[:n]
	w.size.learn(n, len(b.b))
	if !w.proven {
		if w.unread += n; w.unread > maxUnproven {
			return errTooMuch
		}
	}
	return nil // an error comes again
}

func (w *wire) letGo() {
	if w.in != nil {
		w.in.release()
		w.in, w.pending = nil, nil
	}
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
			w.held = w.pool.take(middle)
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
