package hbone

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/ambit-mesh/ambit/hbone/internal/record"
)

// records is a link whose records we seal and open ourselves, in the buffers from which and into which the kernel
// copies. It owns a buffer only while bytes are in it.
type records struct {
	conn net.Conn
	raw  syscall.RawConn // nil: not a socket
	pool *buffers

	// of the goroutine that receives
	r      *record.Reader
	in     *buffer // what has come but was not opened
	have   int     // bytes at the front of in
	size   sizer
	pieces [][]byte
	try    func(uintptr) bool // read, bound once
	n      int                // of the read under way
	err    error

	asked atomic.Bool // the peer wants us to change our key

	// of who sends
	w    *record.Writer
	out  [][]byte
	rest net.Buffers // WriteTo eats its receiver
}

// newRecords takes over a connection. early has come behind the handshake.
func newRecords(conn net.Conn, pool *buffers, r *record.Reader, w *record.Writer, early []byte) *records {
	l := &records{conn: conn, pool: pool, r: r, w: w, size: sizer{class: single}}
	l.try = l.read
	if sc, ok := conn.(*net.TCPConn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			l.raw = raw
		}
	}
	if len(early) > 0 {
		l.in = pool.take(classFor(len(early) + record.MaxLen))
		l.have = copy(l.in.b, early)
	}
	return l
}

func (l *records) receive() (b *buffer, pieces [][]byte, err error) {
	for {
		used, err := l.open()
		if len(l.pieces) > 0 || err != nil {
			b := l.in
			l.keep(used)
			return b, l.pieces, err
		}
		if l.have = l.compact(used); l.have == 0 && l.in != nil {
			l.in.release()
			l.in = nil
		}
		if err := l.more(); err != nil {
			return nil, nil, err
		}
	}
}

// open opens the records that have come whole, and says how many bytes they had.
func (l *records) open() (used int, err error) {
	clear(l.pieces)
	l.pieces = l.pieces[:0]
	for l.have-used >= record.HeaderLen {
		n, err := record.Len(l.in.b[used:])
		if err != nil {
			return used, err
		}
		if l.have-used < n {
			break
		}
		data, err := l.r.Open(l.in.b[used : used+n])
		if err != nil {
			return used, err
		}
		if len(data) > 0 {
			l.pieces = append(l.pieces, data)
		} else if l.r.Asked() {
			l.asked.Store(true)
		}
		used += n
	}
	return used, nil
}

// keep moves what is behind the opened records to the front of another buffer: the caller of receive gets this one.
func (l *records) keep(used int) {
	b, left := l.in, l.have-used
	l.in, l.have = nil, 0
	if left > 0 {
		l.in = l.pool.take(max(l.size.class, single))
		l.have = copy(l.in.b, b.b[used:used+left])
	}
}

func (l *records) compact(used int) int {
	if used > 0 && used < l.have {
		copy(l.in.b, l.in.b[used:l.have])
	}
	return l.have - used
}

// more waits for bytes and reads them behind those that are there.
func (l *records) more() error {
	if l.raw == nil {
		if l.in == nil {
			l.in = l.pool.take(single)
		}
		l.n, l.err = l.conn.Read(l.in.b[l.have:])
	} else {
		l.n, l.err = 0, nil
		if err := l.raw.Read(l.try); err != nil {
			return err
		}
		if l.err != nil {
			l.err = &net.OpError{Op: "read", Net: "tcp", Source: l.conn.LocalAddr(), Addr: l.conn.RemoteAddr(), Err: os.NewSyscallError("read", l.err)}
		} else if l.n == 0 {
			l.err = io.EOF
		}
	}
	l.have += l.n
	if l.n > 0 {
		return nil
	}
	if l.err == io.EOF { // the peer did not say that it ends
		return io.ErrUnexpectedEOF
	}
	return l.err
}

// read reads once. It reports whether it got an answer; if not, it is called again when there is something to read.
func (l *records) read(fd uintptr) bool {
	taken := l.in == nil
	if taken {
		l.in = l.pool.take(max(l.size.class, single))
	}
	for {
		n, err := syscall.Read(int(fd), l.in.b[l.have:])
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			if taken {
				l.in.release()
				l.in = nil
			}
			return false
		}
		if l.n, l.err = max(n, 0), err; n > 0 {
			l.size.learn(n, len(l.in.b)-l.have)
		}
		return true
	}
}

func (l *records) send(batch []parcel) error {
	out := l.out[:0]
	if l.w.Due() || l.asked.Swap(false) {
		update, err := l.w.Update(nil)
		if err != nil {
			return err
		}
		out = append(out, update)
	}
	for _, p := range batch {
		end := 0
		for i, left := 0, p.n; left > 0; i++ {
			m := min(left, record.MaxContent)
			end = i*slotLen + record.HeaderLen + m + record.TrailerLen
			if err := l.w.Seal(p.b.b[i*slotLen : end]); err != nil {
				return err
			}
			left -= m
		}
		out = append(out, p.b.b[:end])
	}
	l.out = out
	if len(out) == 1 {
		_, err := l.conn.Write(out[0])
		out[0] = nil
		return err
	}
	l.rest = out
	_, err := l.rest.WriteTo(l.conn)
	clear(out)
	l.rest = nil
	return err
}

func (l *records) goodbye() error {
	rec, err := l.w.Goodbye(nil)
	if err == nil {
		_, err = l.conn.Write(rec)
	}
	return err
}

func (l *records) complain(err error) {
	e, ok := errors.AsType[*record.Error](err)
	if !ok {
		return
	}
	if rec, err := l.w.Complain(nil, e); err == nil {
		_, _ = l.conn.Write(rec) // the connection ends in any case
	}
}

func (l *records) forget() {
	l.r.Forget()
	l.w.Forget()
	if l.in != nil {
		l.in.release()
		l.in, l.have = nil, 0
	}
}
