package hbone

import (
	"errors"
	"time"

	"github.com/ambit-mesh/ambit/hbone/internal/record"
)

// maxQueued is how many bytes may wait behind a write that is under way, before streams wait themselves.
const maxQueued = 256 << 10

// outbox is what a carrier has to send, in order. The carrier's lock guards it.
type outbox struct {
	queue   []parcel
	queued  int // bytes in queue
	busy    bool
	spare   []parcel
	control []byte // spare, for the engine
}

func (o *outbox) trim() { o.spare, o.control = nil, nil }

// backlogLocked is how much waits to be sent.
func (c *carrier) backlogLocked() int { return c.out.queued + c.eng.Out() }

// sendLocked queues n bytes of frames in b, which it takes over, and writes them if nobody else does.
func (c *carrier) sendLocked(b *buffer, n int) {
	c.packLocked()
	c.out.queue = append(c.out.queue, parcel{b, n})
	c.out.queued += n
	c.flushLocked()
}

// packLocked queues what the engine has to say.
func (c *carrier) packLocked() {
	if c.eng.Out() == 0 {
		return
	}
	control := c.eng.TakeOut(c.out.control)
	for rest := control; len(rest) > 0; {
		b := c.pool.take(classFor(len(rest)))
		n := 0
		for i := 0; len(rest) > 0 && n < b.capacity(); i++ {
			m := copy(b.slot(i)[:min(record.MaxContent, b.capacity()-n)], rest)
			n, rest = n+m, rest[m:]
		}
		c.out.queue = append(c.out.queue, parcel{b, n})
		c.out.queued += n
	}
	c.out.control = nil
	if cap(control) <= small.size() {
		c.out.control = control[:0]
	}
}

// flushLocked writes what waits. If somebody is writing already, the second goroutine will write it. The lock is free
// meanwhile.
func (c *carrier) flushLocked() {
	if c.out.busy || c.said || c.err != nil {
		return
	}
	c.packLocked()
	batch := c.out.queue
	if len(batch) == 0 {
		return
	}
	c.out.queue, c.out.queued, c.out.spare, c.out.busy = c.out.spare[:0], 0, nil, true
	c.room.Broadcast()
	c.mu.Unlock()
	err := c.link.send(batch)
	for i := range batch {
		batch[i].b.release()
	}
	clear(batch)
	c.mu.Lock()
	c.out.spare = batch[:0]
	c.idleLocked()
	if err != nil {
		c.failLocked(err)
	}
}

// idleLocked ends a write.
func (c *carrier) idleLocked() {
	c.out.busy = false
	if c.err != nil {
		c.room.Broadcast()
	} else if c.backlogLocked() > 0 || c.ending {
		c.kick.Signal()
	}
}

// kickLocked has the second goroutine write what the engine said, for those who must not wait.
func (c *carrier) kickLocked() {
	if !c.out.busy {
		c.kick.Signal()
	}
}

// writeLoop writes what others leave behind.
func (c *carrier) writeLoop() {
	c.mu.Lock()
	for c.err == nil {
		switch {
		case c.out.busy || c.said:
			c.kick.Wait()
		case c.backlogLocked() > 0:
			c.flushLocked()
		case c.ending:
			c.sayGoodbyeLocked()
		default:
			c.kick.Wait()
		}
	}
	for _, p := range c.out.queue {
		p.b.release()
	}
	c.out.queue, c.out.queued = nil, 0
	c.mu.Unlock()
}

// sayGoodbyeLocked ends our direction of the connection. The reader hears the peer's end.
func (c *carrier) sayGoodbyeLocked() {
	c.out.busy = true
	c.mu.Unlock()
	err := errors.Join(c.link.goodbye(), closeWrite(c.conn), c.conn.SetReadDeadline(time.Now().Add(goodbyeTimeout)))
	c.mu.Lock()
	c.said = true
	c.idleLocked()
	c.room.Broadcast()
	if err != nil {
		c.failLocked(err)
	}
}

// complain tells the peer which rule of TLS it broke, and hears it out.
func (c *carrier) complain(err error) {
	if _, ok := errors.AsType[*record.Error](err); !ok {
		return
	}
	c.mu.Lock()
	mine := !c.out.busy && !c.said && c.err == nil
	c.out.busy = c.out.busy || mine
	c.said = true
	c.failStreamsLocked(err)
	c.mu.Unlock()
	if mine && c.conn.SetWriteDeadline(time.Now().Add(farewellTimeout)) == nil {
		c.link.complain(err)
		c.hearOut()
	}
	if mine {
		c.mu.Lock()
		c.idleLocked()
		c.mu.Unlock()
	}
}
