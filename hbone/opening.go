package hbone

import (
	"cmp"
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
	over    bool // nobody wants the tunnel any more
	settled bool
	err     error // why it came to nothing

	words    *buffer // what the application says first: kept until the hop has answered
	length   int     // of the words
	sentTo   *Stream // that they were sent to last
	sending  bool
	accepted int   // how many of them sentTo took
	broke    error // why not all
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
	if err := o.begin(ctx, true); err != nil {
		return nil, tunnelError(authority, err)
	}
	o.s.opening = o
	return o.s, nil
}

// begin sends the request, or holds it back for the words that come right behind it.
func (o *opening) begin(ctx context.Context, hold bool) error {
	for {
		s, fresh, err := o.d.begin(ctx, o.hop, o.authority, o.fields, hold)
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
		again := tryAgain(err, o.fresh) && !(lost && o.sentTo != nil) && o.tries < attempts && ctx.Err() == nil
		o.mu.Unlock()
		if !again {
			return nil, tunnelError(o.authority, err)
		}
		if err := o.begin(ctx, false); err != nil {
			return nil, tunnelError(o.authority, err)
		}
		o.say(nil) // what the stream does not take, its answer tells
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

// finish tells the sender how it went. What was said so far counts, if it was said to somebody.
func (o *opening) finish(err error, n *atomic.Int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settled, o.err = true, err
	if err == nil {
		n.Add(int64(o.accepted))
		o.accepted = 0
	}
	if !o.sending {
		o.forgetLocked()
	}
	o.changed.Broadcast()
}

func (o *opening) forgetLocked() {
	if o.words != nil {
		o.words.release()
		o.words = nil
	}
}

// wait waits until it is settled, and gives the stream that was answered, if it has the words.
func (o *opening) wait() (*Stream, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.settled {
		o.changed.Wait()
	}
	return o.s, cmp.Or(o.err, o.broke)
}

func (o *opening) isSettled() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.settled
}

// say sends the words, if there are any, on the stream of now, if that has not had them. n counts them once the tunnel
// stands; until then finish does.
func (o *opening) say(n *atomic.Int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sayLocked(n)
}

func (o *opening) sayLocked(n *atomic.Int64) {
	for o.sending { // to the stream before
		o.changed.Wait()
	}
	if o.words == nil || o.sentTo == o.s {
		return
	}
	s, p := o.s, o.words.b[:o.length]
	o.sentTo, o.sending = s, true
	o.mu.Unlock()
	sent, err := s.Write(p)
	o.mu.Lock()
	o.sending, o.broke = false, err
	o.changed.Broadcast()
	if o.accepted = sent; o.settled {
		if o.err == nil && n != nil {
			n.Add(int64(sent))
		}
		o.forgetLocked()
	}
}

// firstWords sends what src says first. A stream that takes the place of one which was not looked at gets them from
// settle.
func (o *opening) firstWords(src net.Conn, n *atomic.Int64) error {
	s := o.current()
	b, m, rerr := s.c.pool.readSome(src, s.flush)
	if m == 0 {
		if b != nil {
			b.release()
		}
		if rerr == io.EOF {
			return nil // it is read once more
		}
		return rerr
	}
	if s.c.doubtful() { // then it is better to know first: what was sent to nobody cannot be sent once more
		s.flush()
		if _, err := o.wait(); err != nil {
			b.release()
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.words, o.length = b, m
	o.sayLocked(n) // under one lock: finish forgets words that nobody is about to send
	return nil
}
