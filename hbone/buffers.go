package hbone

import (
	"sync"
	"sync/atomic"
)

const (
	recordSize = 16 << 10       // what one read of a TLS connection gives at most
	smallSize  = 2 << 10        // for messages that arrive one by one
	bulkSize   = 64 << 10       // reads from an application, and below TLS
	corkSize   = 72 << 10       // four full TLS records and a rest
	pinAtLeast = recordSize / 2 // a smaller piece of a buffer is copied rather than held in place
)

// buffer is memory with several holders; the last one to release it gives it back.
type buffer struct {
	b    []byte
	refs atomic.Int32
	pool *sync.Pool
}

func (b *buffer) hold() { b.refs.Add(1) }

func (b *buffer) release() {
	if b.refs.Add(-1) == 0 {
		b.pool.Put(b)
	}
}

// alone reports whether the caller is the only holder.
func (b *buffer) alone() bool { return b.refs.Load() == 1 }

// buffers are shared by the connections of one Dialer or Server.
type buffers struct{ small, record, bulk, cork sync.Pool }

func take(p *sync.Pool, size int) *buffer {
	b, ok := p.Get().(*buffer)
	if !ok {
		b = &buffer{b: make([]byte, size), pool: p}
	}
	b.refs.Store(1)
	return b
}

func (p *buffers) takeSmall() *buffer  { return take(&p.small, smallSize) }
func (p *buffers) takeRecord() *buffer { return take(&p.record, recordSize) }
func (p *buffers) takeBulk() *buffer   { return take(&p.bulk, bulkSize) }
func (p *buffers) takeCork() *buffer   { return take(&p.cork, corkSize) }
