package hbone

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
)

// opening is a tunnel that its hop has not answered yet. Join sends what the application says first right behind the
// request, which saves a new connection one way to the hop and back. The hop keeps it until it has answered, and throws
// it away if it refuses. A hop that did not look at the request is asked again, with the same first words.
type opening struct {
	d         *Dialer
	hop       Hop
	authority string
	fields    []h2.Field
	until     time.Time // when the hop must have answered

	mu      sync.Mutex // guards below
	changed sync.Cond
	s       *Stream
	fresh   bool // the connection was opened for this tunnel
	tries   int
	spoke   bool // the application's bytes were sent
	over    bool // nobody wants the tunnel any more
	settled bool
	err     error // why it came to nothing
}

// Open opens a tunnel as Dial does, but does not wait for the hop's answer: Join does, and sends meanwhile what the
// application says first. If the hop refuses, Join's result has the error that Dial would have given.
func (d *Dialer) Open(ctx context.Context, hop Hop, authority string, h http.Header) (*Stream, error) {
	fields, err := request(authority, h)
	if err != nil {
		return nil, err
	}
	o := &opening{d: d, hop: hop, authority: authority, fields: fields, until: time.Now().Add(answerTimeout)}
	o.changed.L = &o.mu
	if err := o.begin(ctx); err != nil {
		return nil, tunnelError(authority, err)
	}
	o.s.opening = o
	return o.s, nil
}

// begin sends the request.
func (o *opening) begin(ctx context.Context) error {
	for {
		s, fresh, err := o.d.begin(ctx, o.hop, o.authority, o.fields)
		o.mu.Lock()
		o.tries++
		again := err != nil && tryAgain(err, fresh) && o.tries < attempts && ctx.Err() == nil
		if err == nil {
			o.s, o.fresh = s, fresh
			o.changed.Broadcast()
			if o.over {
				s.Reset()
			}
		}
		o.mu.Unlock()
		if !again {
			return err
		}
	}
}

// settle waits for the hop's answer, and asks again where that is safe.
func (o *opening) settle(ctx context.Context) (*Stream, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, o.until, errNoAnswer)
	defer cancel()
	for {
		s := o.current()
		err := s.answered(ctx, o.hop)
		if err == nil {
			return s, nil
		}
		o.mu.Lock()
		_, lost := errors.AsType[*lostError](err)
		again := tryAgain(err, o.fresh) && !(lost && o.spoke) && o.tries < attempts && ctx.Err() == nil
		o.mu.Unlock()
		if !again {
			return nil, tunnelError(o.authority, err)
		}
		if err := o.begin(ctx); err != nil {
			return nil, tunnelError(o.authority, err)
		}
	}
}

func (o *opening) current() *Stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.s
}

// reset cuts the tunnel, whichever stream it is by now.
func (o *opening) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	o.s.Reset()
}

// finish tells the sender how it went.
func (o *opening) finish(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settled, o.err = true, err
	o.changed.Broadcast()
}

// next waits until s was answered, or another stream has taken its place.
func (o *opening) next(s *Stream) (*Stream, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.s == s && !o.settled {
		o.changed.Wait()
	}
	return o.s, o.err
}

// firstWords sends what src says first, on each stream that takes the place of one which was not looked at, and gives
// the stream that was answered.
func (o *opening) firstWords(src net.Conn, n *atomic.Int64) (*Stream, error) {
	s := o.current()
	b, m, rerr := s.c.pool.readSome(src)
	if b != nil {
		defer b.release()
	}
	if rerr != nil && rerr != io.EOF {
		return nil, rerr
	}
	if s.c.doubtful() { // then it is better to know first: what was sent to nobody cannot be sent once more
		s2, err := o.next(s)
		if err != nil {
			return nil, err
		}
		s = s2
	}
	for {
		sent, werr := 0, error(nil)
		if m > 0 {
			o.mu.Lock()
			o.spoke = true
			o.mu.Unlock()
			sent, werr = s.Write(b.b[:m])
		}
		next, err := o.next(s)
		if err != nil {
			return nil, err
		}
		if next != s {
			s = next
			continue
		}
		n.Add(int64(sent))
		return s, werr // the end of src, if it was there, is read once more
	}
}
