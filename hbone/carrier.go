package hbone

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
	"github.com/ambit-mesh/ambit/identity"
)

// maxQueued is how many bytes may wait behind a write that is under way, before streams wait themselves.
const maxQueued = 256 << 10

// carrier is a connection between two machines and the tunnels in it: the engine, carried by crypto/tls. One goroutine
// reads. Streams write for themselves when nobody else does; what they or the engine leave behind, a second goroutine
// writes. The reader never writes, so two peers cannot wait for each other.
type carrier struct {
	tls    *tls.Conn
	wire   *wire
	pool   *buffers
	peer   identity.ID
	chain  []*x509.Certificate // that proved it, leaf first
	server *Server             // of an accepted connection
	base   context.Context     // of its handlers
	key    key                 // of a dialled connection: what it is pooled by

	handlers sync.WaitGroup

	changed func(*carrier) // called without the lock when the connection took its last stream, or ended

	mu      sync.Mutex // guards below
	kick    sync.Cond  // the writer has something to do
	room    sync.Cond  // the queue has been taken
	eng     *h2.Conn
	streams map[uint32]*Stream
	spare   []byte
	writing bool
	ending  bool  // say goodbye when all is written
	said    bool  // we did
	err     error // why it is over
	pending int   // streams promised to dials
	active  int   // handlers at work
	timer   *time.Timer
	heard   bool      // something came since the last tick
	pinged  time.Time // when the ping was sent that is not answered; zero: none
	idle    time.Time // since when no stream is open
	events  []h2.Event
}

func newCarrier(conn *tls.Conn, w *wire, pool *buffers, peer identity.ID, conf h2.Config) *carrier {
	c := &carrier{tls: conn, wire: w, pool: pool, peer: peer, chain: conn.ConnectionState().PeerCertificates, eng: h2.New(conf), streams: map[uint32]*Stream{}, idle: time.Now()}
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
	c.mu.Unlock()
	wg.Wait()
	c.changed(c)
}

func (c *carrier) readLoop() error {
	b := c.pool.takeRecord()
	defer func() { b.release() }()
	for {
		n, err := c.tls.Read(b.b)
		if n > 0 {
			if err := c.feed(b, n); err != nil {
				c.hearOut()
				return err
			}
			if !b.alone() {
				b.release()
				b = c.pool.takeRecord()
			}
		}
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// feed gives the engine what was read, and the streams what it means.
func (c *carrier) feed(b *buffer, n int) error {
	c.mu.Lock()
	gone := c.eng.Gone()
	events, err := c.eng.Feed(b.b[:n], c.events[:0])
	c.heard = true
	for i := range events {
		c.dispatchLocked(&events[i], b)
		events[i] = h2.Event{}
	}
	c.events = events[:0]
	if c.eng.Out() > 0 {
		c.kick.Signal()
	}
	if err == nil && c.eng.Drained() {
		c.endLocked()
	}
	gone = !gone && c.eng.Gone()
	if err != nil {
		c.refuseLocked(err)
	}
	c.mu.Unlock()
	if gone {
		c.changed(c)
	}
	return err
}

// refuseLocked lets the writer say why the connection ends, for as long as a second.
func (c *carrier) refuseLocked(err error) {
	c.failStreamsLocked(err)
	if c.tls.SetWriteDeadline(time.Now().Add(farewellTimeout)) != nil {
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
	if c.wire.SetReadDeadline(time.Now().Add(farewellTimeout)) == nil {
		_, _ = io.Copy(io.Discard, c.wire.Conn) // it ends by the peer's end, or the deadline
	}
}

func (c *carrier) dispatchLocked(e *h2.Event, b *buffer) {
	switch e.Kind {
	case h2.Request:
		c.requestLocked(e)
		return
	case h2.Pong:
		c.pinged = time.Time{}
		return
	case h2.Writable:
		if e.Stream == 0 {
			for _, s := range c.streams {
				s.canWrite.Broadcast()
			}
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
	case h2.Data:
		s.pushLocked(e.Data, b)
	case h2.End:
		s.endedLocked(true)
	case h2.Reset:
		s.failLocked(&ResetError{Code: e.Code.String(), Peer: !e.Local, Why: e.Why})
	case h2.Writable:
		s.canWrite.Broadcast()
	}
}

// writeLoop writes what others leave behind.
func (c *carrier) writeLoop() {
	c.mu.Lock()
	for c.err == nil {
		switch {
		case !c.writing && c.eng.Out() > 0 && !c.said:
			c.flushLocked()
		case !c.writing && c.ending && !c.said:
			c.sayGoodbyeLocked()
		default:
			c.kick.Wait()
		}
	}
	c.mu.Unlock()
}

// sayGoodbyeLocked ends our direction of the connection. The reader hears the peer's end.
func (c *carrier) sayGoodbyeLocked() {
	c.writing = true
	c.mu.Unlock()
	err := errors.Join(c.tls.CloseWrite(), closeWrite(c.wire.Conn), c.wire.SetReadDeadline(time.Now().Add(goodbyeTimeout)))
	c.mu.Lock()
	c.said = true // writing stays true: nothing may follow
	c.room.Broadcast()
	if err != nil {
		c.failLocked(err)
	}
}

// flushLocked writes what waits. The lock is free meanwhile.
func (c *carrier) flushLocked() {
	out := c.eng.TakeOut(c.spare)
	c.spare = nil
	err := c.writeLocked(out)
	if cap(out) <= 2*maxQueued {
		c.spare = out[:0]
	}
	if err != nil {
		c.failLocked(err)
	}
}

// writeLocked writes p, with the lock free meanwhile.
func (c *carrier) writeLocked(p []byte) error {
	c.writing = true
	c.mu.Unlock()
	err := c.write(p)
	c.mu.Lock()
	c.writing = false
	c.room.Broadcast()
	if c.eng.Out() > 0 || c.ending {
		c.kick.Signal()
	}
	return err
}

func (c *carrier) write(p []byte) error {
	if len(p) <= recordSize {
		_, err := c.tls.Write(p)
		return err
	}
	c.wire.cork()
	_, err := c.tls.Write(p)
	return errors.Join(err, c.wire.uncork())
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
	_ = c.wire.Conn.Close() // the connection is lost already: how it closes tells nothing new
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
		if len(c.streams) == 0 && !c.writing {
			c.eng.Trim()
			c.spare = nil
		}
		c.kick.Signal()
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

func (c *carrier) localAddr() net.Addr  { return c.wire.LocalAddr() }
func (c *carrier) remoteAddr() net.Addr { return c.wire.RemoteAddr() }
