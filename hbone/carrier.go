package hbone

import (
	"context"
	"crypto/x509"
	"io"
	"net"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
	"github.com/ambit-mesh/ambit/identity"
)

// carrier is a connection between two machines and the tunnels in it: the engine, carried by a link. One goroutine reads.
// Streams write for themselves when nobody else does; what they or the engine leave behind, a second goroutine writes. The
// reader never waits for a writer, so two peers cannot wait for each other.
type carrier struct {
	conn   net.Conn
	link   link
	pool   *buffers
	peer   identity.ID
	chain  []*x509.Certificate // that proved it, leaf first
	server *Server             // of an accepted connection
	base   context.Context     // of its handlers
	key    key                 // of a dialled connection: what it is pooled by

	handlers sync.WaitGroup

	changed func(*carrier) // called without the lock when the connection took its last stream, or ended

	// of the reader
	arrived []*joint            // that have something to deliver
	answers []func(stands bool) // of streams that are tunnels now
	deliver delivery

	mu      sync.Mutex // guards below
	kick    sync.Cond  // the writer has something to do
	room    sync.Cond  // the queue has been taken
	eng     *h2.Conn
	streams map[uint32]*Stream
	out     outbox
	ending  bool  // say goodbye when all is written
	said    bool  // we did, or are about to: nothing may follow
	err     error // why it is over
	pending int   // streams promised to dials
	active  int   // handlers at work
	timer   *time.Timer
	heard   bool      // something came since the last tick
	pinged  time.Time // when the ping was sent that is not answered; zero: none
	idle    time.Time // since when no stream is open
	events  []h2.Event
}

func newCarrier(end *shaken, pool *buffers, conf h2.Config) *carrier {
	c := &carrier{
		conn: end.conn, link: end.link, peer: end.peer, chain: end.chain,
		pool: pool, eng: h2.New(conf), streams: map[uint32]*Stream{}, idle: time.Now(),
	}
	c.kick.L, c.room.L = &c.mu, &c.mu
	return c
}

// run carries the connection to its end.
func (c *carrier) run() {
	var wg sync.WaitGroup
	c.mu.Lock()
	if c.err == nil {
		c.timer = time.AfterFunc(pingEvery, c.tick)
	}
	c.mu.Unlock()
	wg.Go(c.writeLoop)
	err := c.readLoop()
	c.mu.Lock()
	c.failLocked(err)
	for c.out.busy {
		c.room.Wait()
	}
	c.mu.Unlock()
	wg.Wait()
	c.link.forget()
	c.changed(c)
}

func (c *carrier) readLoop() error {
	for {
		b, pieces, err := c.link.receive()
		if len(pieces) > 0 {
			if err := c.feed(pieces); err != nil {
				b.release()
				c.hearOut()
				return err
			}
		}
		if b != nil {
			b.release()
		}
		if err == nil {
			continue
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		c.complain(err)
		return err
	}
}

// feed gives the engine what was read, and the streams what it means.
func (c *carrier) feed(pieces [][]byte) error {
	c.mu.Lock()
	gone := c.eng.Gone()
	c.heard = true
	var broken error
	for _, p := range pieces {
		events, err := c.eng.Feed(p, c.events[:0])
		for i := range events {
			c.dispatchLocked(&events[i])
			events[i] = h2.Event{}
		}
		c.events = events[:0]
		if err != nil {
			broken = err
			break
		}
	}
	if c.eng.Out() > 0 {
		c.kickLocked()
	}
	if broken == nil && c.eng.Drained() {
		c.endLocked()
	}
	gone = !gone && c.eng.Gone()
	c.mu.Unlock()
	for _, f := range c.answers {
		f(true)
	}
	clear(c.answers)
	c.answers = c.answers[:0]
	for _, j := range c.arrived {
		j.deliver()
	}
	clear(c.arrived)
	c.arrived = c.arrived[:0]
	if gone {
		c.changed(c)
	}
	if broken == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuseLocked(broken)
	return broken
}

// wakeLocked lets all streams look whether they can write.
func (c *carrier) wakeLocked() {
	for _, s := range c.streams {
		s.canWrite.Broadcast()
	}
}

// refuseLocked lets the writer say why the connection ends, for as long as a second.
func (c *carrier) refuseLocked(err error) {
	c.failStreamsLocked(err)
	if c.conn.SetWriteDeadline(time.Now().Add(farewellTimeout)) != nil {
		return
	}
	c.endLocked()
	for c.err == nil && !c.said {
		c.room.Wait()
	}
}

// hearOut throws away what the peer still sends. Closing a socket with input unread would destroy what the peer has
// not read yet.
func (c *carrier) hearOut() {
	if c.conn.SetReadDeadline(time.Now().Add(farewellTimeout)) == nil {
		_, _ = io.Copy(io.Discard, c.conn) // it ends by the peer's end, or the deadline
	}
}

func (c *carrier) dispatchLocked(e *h2.Event) {
	switch e.Kind {
	case h2.Request:
		c.requestLocked(e)
		return
	case h2.Pong:
		c.pinged = time.Time{}
		return
	case h2.Writable:
		if e.Stream == 0 {
			c.wakeLocked()
			return
		}
	}
	s := c.streams[e.Stream]
	if s == nil {
		if e.Kind == h2.Data {
			c.eng.Consumed(e.Stream, len(e.Data))
		}
		return
	}
	switch e.Kind {
	case h2.Response:
		s.status, s.header = e.Head.Status, toHeader(e.Head.Fields)
		s.endedLocked(e.End)
		s.canRead.Broadcast()
		if f := s.answer; f != nil {
			s.answer = nil
			if s.stands() {
				c.answers = append(c.answers, f)
			} else {
				go f(false)
			}
		}
	case h2.Data:
		if s.joint != nil && s.joint.takeLocked(e.Data) {
			return
		}
		s.pushLocked(e.Data)
	case h2.End:
		s.endedLocked(true)
		if s.joint != nil {
			s.joint.listLocked()
		}
	case h2.Reset:
		s.failLocked(&ResetError{Code: e.Code.String(), Peer: !e.Local, Why: e.Why})
	case h2.Writable:
		s.canWrite.Broadcast()
	}
}

// endLocked closes the connection when all is written.
func (c *carrier) endLocked() {
	if !c.ending {
		c.ending = true
		c.kick.Broadcast()
	}
}

// drain asks the peer to open no more streams, and ends the connection with the last one.
func (c *carrier) drain() {
	c.mu.Lock()
	c.eng.Drain()
	if c.eng.Drained() {
		c.endLocked()
	} else {
		time.AfterFunc(farewell, c.farewell)
	}
	c.kick.Signal()
	c.mu.Unlock()
	c.changed(c)
}

// farewell is how long a peer may take to answer that it has heard of a drain: the peer of a pod that was deleted
// cannot be reached.
const farewell = 2 * time.Second

func (c *carrier) farewell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending || c.eng.Drained() {
		return // it has heard
	}
	c.eng.Farewell()
	if c.eng.Drained() {
		c.failLocked(errSilent) // no stream is open, and nobody is there to take leave of
	}
	c.kick.Signal()
}

// cut ends the connection now.
func (c *carrier) cut(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(why)
}

func (c *carrier) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	if c.timer != nil {
		c.timer.Stop()
	}
	c.failStreamsLocked(err)
	c.kick.Broadcast()
	c.room.Broadcast()
	_ = c.conn.Close() // the connection is lost already: how it closes tells nothing new
}

func (c *carrier) failStreamsLocked(err error) {
	for _, s := range c.streams {
		s.failLocked(&lostError{err})
	}
}

// addLocked registers a stream.
func (c *carrier) addLocked(id uint32) *Stream {
	s := &Stream{c: c, id: id}
	s.canRead.L, s.canWrite.L = &c.mu, &c.mu
	c.streams[id] = s
	return s
}

// forgetLocked lets go of a stream for which no event can come any more.
func (c *carrier) forgetLocked(s *Stream) {
	if c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	if len(c.streams) == 0 {
		c.idle = time.Now()
		if c.eng.Drained() {
			c.endLocked()
		}
	}
}

// tick runs every ten seconds: it looks whether the peer lives, renews budgets, and lets go of what is not needed.
func (c *carrier) tick() {
	c.mu.Lock()
	now := time.Now()
	switch {
	case c.err != nil:
		c.mu.Unlock()
		return
	case !c.eng.Settled():
		c.failLocked(errNoSettings)
	case !c.pinged.IsZero() && c.heard:
		c.pinged = now // slow, but not dead
	case !c.pinged.IsZero() && now.Sub(c.pinged) >= pingTimeout:
		c.failLocked(errPingLate)
	}
	c.heard = false
	for _, s := range c.streams {
		if s.closed && now.Sub(s.closedAt) >= lingerTimeout {
			s.abortLocked(h2.Cancel, "peer did not end its direction")
		}
	}
	idle := c.server == nil && len(c.streams) == 0 && c.pending == 0 && now.Sub(c.idle) >= idleTimeout
	if c.err == nil {
		c.eng.Refill()
		if c.pinged.IsZero() {
			c.pinged = now
			c.eng.Ping([8]byte{'a', 'l', 'i', 'v', 'e', '?'})
		}
		if len(c.streams) == 0 && !c.out.busy {
			c.eng.Trim()
			c.out.trim()
		}
		c.kickLocked()
		c.timer.Reset(pingEvery)
	}
	c.mu.Unlock()
	if idle {
		c.drain()
	}
}

// doubtful reports whether the peer owes us a sign of life.
func (c *carrier) doubtful() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.pinged.IsZero() && time.Since(c.pinged) > time.Second
}

func (c *carrier) localAddr() net.Addr  { return c.conn.LocalAddr() }
func (c *carrier) remoteAddr() net.Addr { return c.conn.RemoteAddr() }
