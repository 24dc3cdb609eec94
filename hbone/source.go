package hbone

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// source reads an application's socket into the slots of a buffer. It takes the buffer, and the peer's window for what
// fits, only when there is something to read: an idle connection owns neither, and one whose peer takes no more leaves its
// data in the kernel.
type source struct {
	s    *Stream
	conn *net.TCPConn
	raw  syscall.RawConn
	size sizer
	try  func(uintptr) bool // read, bound once
	// ended: the application was told that nothing more comes for it
	ended *atomic.Bool

	// of the read under way
	b        *buffer
	n        int
	reserved int
	err      error
}

func newSource(s *Stream, conn *net.TCPConn, raw syscall.RawConn, ended *atomic.Bool) *source {
	r := &source{s: s, conn: conn, raw: raw, ended: ended}
	r.try = r.read
	return r
}

// copy carries the application's bytes into the tunnel until the application ends its direction.
func (r *source) copy(n *atomic.Int64) error {
	for {
		if err := r.s.waitWindow(); err != nil {
			return err
		}
		r.b, r.n, r.err = nil, 0, nil
		err := r.raw.Read(r.try)
		b := r.b
		r.b = nil
		if err == nil && r.err != nil {
			err = &net.OpError{Op: "read", Net: "tcp", Source: r.conn.LocalAddr(), Addr: r.conn.RemoteAddr(), Err: os.NewSyscallError("readv", r.err)}
		}
		switch {
		case b == nil && err != nil:
			return err
		case b == nil: // the window has closed meanwhile
			continue
		case r.n == 0:
			b.release()
			r.s.unreserve(r.reserved)
			if err == nil {
				err = properEnd(r.conn, r.raw, r.ended)
			}
			return err
		}
		m := r.n
		if err := r.s.sendReserved(b, m, r.reserved-m); err != nil {
			return err
		}
		n.Add(int64(m))
	}
}

// properEnd says what the end of a socket's data is: io.EOF, or a reset that somebody else has heard of.
func properEnd(conn *net.TCPConn, raw syscall.RawConn, ended *atomic.Bool) error {
	if over(raw) && !ended.Load() { // in this order: our own end may come between
		return &net.OpError{Op: "read", Net: "tcp", Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	}
	return io.EOF
}

// read reads once. It reports whether it got an answer; if not, it is called again when there is something to read.
func (r *source) read(fd uintptr) bool {
	if r.reserved = r.s.reserve(r.size.class.payload()); r.reserved == 0 {
		return true
	}
	b := r.s.c.pool.take(r.size.class)
	for {
		n, err := b.readv(fd, r.reserved)
		switch err {
		case 0:
			r.b, r.n = b, n
			r.size.learn(n, r.size.class.payload())
			return true
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			b.release()
			r.s.unreserve(r.reserved)
			return false
		}
		r.b, r.err = b, err
		return true
	}
}

// readv reads up to n bytes into the payloads of slots.
func (b *buffer) readv(fd uintptr, n int) (int, syscall.Errno) {
	full, part := n/payloadLen, n%payloadLen
	if full == 0 {
		m, _, err := syscall.Syscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(b.iov[0].Base)), uintptr(n))
		return int(m), err
	}
	count := full
	if part > 0 {
		b.iov[full].SetLen(part)
		defer b.iov[full].SetLen(payloadLen)
		count++
	}
	m, _, err := syscall.Syscall(syscall.SYS_READV, fd, uintptr(unsafe.Pointer(&b.iov[0])), uintptr(count))
	return int(m), err
}
