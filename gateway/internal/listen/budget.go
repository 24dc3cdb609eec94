package listen

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// What an HTTP/2 client may ask of us beside its requests: so much at once, and so much in each second. Figures are far
// above what clients do, and far below what costs us anything (HB-14, HB-19).
const (
	budgetBurst = 2000
	budgetRate  = 200
	dribble     = 16 // content of a DATA frame that is not free
)

const (
	frameHead = 9
	preface   = 24 // bytes that come before the first frame
)

// Types of frames (RFC 9113, section 6).
const (
	frameData    = 0x0
	frameHeaders = 0x1
	frameReset   = 0x3
	frameGoAway  = 0x7
	frameWindow  = 0x8
	flagEnd      = 0x1
	flagPadded   = 0x8
)

var errBudget = errors.New("the client asks for more than its budget of frames")

// frames follows a stream of frames and knows where each begins.
type frames struct {
	skip int // bytes until the next head
	head [frameHead]byte
	have int
}

// see is told of bytes that pass, and tells of each head.
func (f *frames) see(p []byte, found func(length int, kind, flags byte)) {
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(p))
			f.skip -= n
			p = p[n:]
			continue
		}
		n := copy(f.head[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have == frameHead {
			f.have = 0
			f.skip = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
			found(f.skip, f.head[3], f.head[4])
		}
	}
}

// between reports whether a frame has just ended.
func (f *frames) between() bool { return f.skip == 0 && f.have == 0 }

// budgeted is a connection of HTTP/2 that ends when its client makes too much work that is no request.
type budgeted struct {
	net.Conn
	now func() time.Time

	in     frames // of the one reader
	left   float64
	filled time.Time

	mu  sync.Mutex // guards below; held while writing
	out frames
	bad bool
}

func newBudgeted(c net.Conn, now func() time.Time) *budgeted {
	return &budgeted{Conn: c, now: now, in: frames{skip: preface}, left: budgetBurst, filled: now()}
}

// withBudget keeps a connection's client to its budget, and what the server knows of its TLS.
func withBudget(c net.Conn, now func() time.Time) net.Conn {
	b := newBudgeted(c, now)
	if t, ok := c.(*tls.Conn); ok {
		return &budgetedTLS{b, t}
	}
	return b
}

type budgetedTLS struct {
	*budgeted
	t *tls.Conn
}

// ConnectionState is how TLS was agreed on.
func (b *budgetedTLS) ConnectionState() tls.ConnectionState { return b.t.ConnectionState() }

// Read reads on, and fails once the budget is spent.
func (b *budgeted) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	cost := 0
	b.in.see(p[:n], func(length int, kind, flags byte) {
		switch kind {
		case frameData:
			if length <= dribble && flags&flagEnd == 0 || flags&flagPadded != 0 {
				cost++
			}
		case frameHeaders, frameWindow, frameGoAway:
		default: // resets, pings, settings, priorities, continuations, unknown ones
			cost++
		}
	})
	if cost > 0 && !b.spend(float64(cost)) {
		b.farewell()
		return 0, errBudget
	}
	return n, err
}

func (b *budgeted) spend(cost float64) bool {
	now := b.now()
	b.left = min(budgetBurst, b.left+now.Sub(b.filled).Seconds()*budgetRate)
	b.filled = now
	b.left -= cost
	return b.left >= 0
}

// Write passes on what the server writes, until the farewell.
func (b *budgeted) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bad {
		return 0, errBudget
	}
	n, err := b.Conn.Write(p)
	b.out.see(p[:n], func(int, byte, byte) {})
	return n, err
}

// farewell tells the client to calm down, where that does not fall into the middle of a frame.
func (b *budgeted) farewell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bad = true; b.out.between() {
		b.Conn.SetWriteDeadline(b.now().Add(time.Second)) //nolint:errcheck // a closed connection fails at the write
		// GOAWAY of 8 bytes on stream 0: last stream 0, ENHANCE_YOUR_CALM.
		b.Conn.Write([]byte{0, 0, 8, frameGoAway, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb}) //nolint:errcheck // it is closed next
	}
}
