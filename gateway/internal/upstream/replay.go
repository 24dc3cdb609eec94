package upstream

import (
	"io"
	"net/http"
	"sync"
)

// maxReplay is how much of a body is kept so that it can be sent again.
const maxReplay = 64 << 10

// replay is a request's body that several tries may read. It streams: what is kept is bounded, and once more than that
// was read there is no further try. What a try that was given up still reads is kept for the next one.
type replay struct {
	from io.ReadCloser

	reading sync.Mutex // held while reading from

	mu     sync.Mutex // guards below
	kept   []byte
	total  int  // bytes read
	lost   bool // more was read than is kept
	err    error
	reader *tryBody // the present one; older ones read nothing more
}

// bodyOf wraps a body; nil for a request that has none.
func bodyOf(r *http.Request) *replay {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	return &replay{from: r.Body}
}

// open makes a body for the next try.
func (p *replay) open() io.ReadCloser {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reader = &tryBody{p: p}
	return p.reader
}

// again reports whether the body can be read from its start once more.
func (p *replay) again() bool {
	if p == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.lost
}

// tryBody is the body of one try. Closing it does not close the client's.
type tryBody struct {
	p  *replay
	at int
}

func (b *tryBody) Read(buf []byte) (int, error) {
	for {
		if n, err := b.replayed(buf); n > 0 || err != nil {
			return n, err
		}
		if n, err, done := b.fresh(buf); done {
			return n, err
		}
	}
}

// replayed gives what is known already; 0 bytes and no error mean that there is nothing yet.
func (b *tryBody) replayed(buf []byte) (int, error) {
	p := b.p
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.reader != b, p.lost && b.at != p.total:
		return 0, io.ErrClosedPipe
	case b.at < len(p.kept):
		n := copy(buf, p.kept[b.at:])
		b.at += n
		return n, nil
	}
	return 0, p.err
}

// fresh reads on; not done means that another try did so meanwhile.
func (b *tryBody) fresh(buf []byte) (n int, err error, done bool) { //nolint:revive // done says whether the others count
	p := b.p
	p.reading.Lock()
	defer p.reading.Unlock()
	p.mu.Lock()
	stale := p.reader != b || b.at != p.total || p.err != nil
	p.mu.Unlock()
	if stale {
		return 0, nil, false
	}
	n, err = p.from.Read(buf)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	p.total += n
	switch {
	case p.lost:
	case len(p.kept)+n > maxReplay:
		p.lost, p.kept = true, nil
	default:
		p.kept = append(p.kept, buf[:n]...)
	}
	if p.reader != b {
		return 0, io.ErrClosedPipe, true
	}
	b.at += n
	return n, err, true
}

func (b *tryBody) Close() error { return nil }
