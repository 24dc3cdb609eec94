package hbone

import (
	"sync"
	"syscall"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
	"github.com/ambit-mesh/ambit/hbone/internal/record"
)

// A buffer for sending is cut into slots. A slot holds one TLS record with one DATA frame, from the front: the record's
// header, the frame's header, up to payloadLen bytes, and the record's trailer. An application's bytes are read to where
// they are sealed and sent from; full slots touch each other, so that a whole buffer leaves in one piece.
const (
	slotLen    = record.HeaderLen + record.MaxContent + record.TrailerLen
	payloadAt  = record.HeaderLen + h2.FrameHeaderLen
	payloadLen = record.MaxContent - h2.FrameHeaderLen
	slots      = 16 // in the largest buffer
)

// class is a size of buffers.
type class int

const (
	small  class = iota // for messages that arrive one by one
	single              // one record of any length
	middle
	bulk
)

func (c class) size() int {
	switch c {
	case small:
		return 2 << 10
	case single:
		return record.MaxLen
	case middle:
		return slots / 4 * slotLen
	}
	return slots * slotLen
}

// payload is how many bytes of an application fit.
func (c class) payload() int {
	switch c {
	case small:
		return small.size() - payloadAt - record.TrailerLen
	case single:
		return payloadLen
	case middle:
		return slots / 4 * payloadLen
	}
	return slots * payloadLen
}

// classFor is the smallest class in which n bytes of an application fit, or the largest.
func classFor(n int) class {
	c := small
	for c < bulk && c.payload() < n {
		c++
	}
	return c
}

// buffer is memory with one holder, who gives it back.
type buffer struct {
	b    []byte
	iov  []syscall.Iovec // of the payloads of its slots
	pool *sync.Pool
}

func (b *buffer) release() { b.pool.Put(b) }

// slot gives the part of a slot that follows the room for the record's header.
func (b *buffer) slot(i int) []byte { return b.b[i*slotLen+record.HeaderLen:] }

// capacity is how many bytes of frames fit.
func (b *buffer) capacity() int {
	return min(len(b.b)-record.HeaderLen-record.TrailerLen, record.MaxContent) * len(b.iov)
}

// fill puts p, which must fit, behind the frame headers of a stream, and gives the length of all frames.
func (b *buffer) fill(id uint32, p []byte) int {
	for i, rest := 0, p; len(rest) > 0; i++ {
		rest = rest[copy(b.slot(i)[h2.FrameHeaderLen:][:min(len(rest), payloadLen)], rest):]
	}
	return b.frame(id, len(p))
}

// frame puts headers before n bytes that are in place, and gives the length of all frames.
func (b *buffer) frame(id uint32, n int) int {
	total := n
	for i := 0; n > 0; i++ {
		m := min(n, payloadLen)
		h2.PutDataHeader(b.slot(i), id, m)
		n, total = n-m, total+h2.FrameHeaderLen
	}
	return total
}

// buffers are shared by the connections of one Dialer or Server.
type buffers struct{ pools [bulk + 1]sync.Pool }

func (p *buffers) take(c class) *buffer {
	pool := &p.pools[c]
	b, ok := pool.Get().(*buffer)
	if !ok {
		b = &buffer{b: make([]byte, c.size()), pool: pool}
		for at, n := payloadAt, c.payload(); n > 0; at, n = at+slotLen, n-payloadLen {
			v := syscall.Iovec{Base: &b.b[at]}
			v.SetLen(min(n, payloadLen))
			b.iov = append(b.iov, v)
		}
	}
	return b
}

// sizer chooses a class by what was read lately: a step up when a buffer was filled, a step down after several reads
// that left most of one empty.
type sizer struct {
	class class
	low   int
}

func (s *sizer) learn(n, room int) {
	switch {
	case n == room:
		s.class, s.low = min(s.class+1, bulk), 0
	case s.class > small && n < (s.class-1).size()/2:
		if s.low++; s.low >= 5 {
			s.class, s.low = s.class-1, 0
		}
	default:
		s.low = 0
	}
}
