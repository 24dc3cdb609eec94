package hbone

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// reader reads from a connection into pooled buffers. From a socket it takes a buffer only when there is something to
// read, so that an idle connection owns none.
type reader struct {
	conn net.Conn
	raw  syscall.RawConn    // nil: not a socket
	once func(uintptr) bool // try, bound once
	pool *sync.Pool

	// of the read under way
	room int
	b    *buffer
	n    int
	err  error
}

func newReader(conn net.Conn, pool *sync.Pool) *reader {
	r := &reader{conn: conn, pool: pool}
	r.once = r.try
	if sc, ok := conn.(*net.TCPConn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			r.raw = raw
		}
	}
	return r
}

// read gives a buffer with n bytes behind room free ones. The caller releases it, if there is one.
func (r *reader) read(room int) (b *buffer, n int, err error) {
	if r.raw == nil {
		b = take(r.pool, bulkSize)
		n, err = r.conn.Read(b.b[room:])
		return b, n, err
	}
	r.room, r.b, r.n, r.err = room, nil, 0, nil
	if err := r.raw.Read(r.once); err != nil {
		return nil, 0, err
	}
	b, r.b = r.b, nil
	switch {
	case r.err != nil:
		return b, 0, &net.OpError{Op: "read", Net: "tcp", Source: r.conn.LocalAddr(), Addr: r.conn.RemoteAddr(), Err: r.err}
	case r.n == 0:
		return b, 0, io.EOF
	}
	return b, r.n, nil
}

// try reads once. It reports whether it got an answer; if not, it is called again when there is something to read.
func (r *reader) try(fd uintptr) bool {
	b := take(r.pool, bulkSize)
	for {
		n, err := syscall.Read(int(fd), b.b[r.room:])
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			b.release()
			return false
		}
		r.b, r.n, r.err = b, n, err
		return true
	}
}
