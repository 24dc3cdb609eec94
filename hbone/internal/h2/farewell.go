package h2

import "encoding/binary"

// drainMark is the ping behind the first GOAWAY: what arrives before its answer was sent unwarned.
const drainMark = "ambitend"

// Ping asks for a Pong. The payload must not begin like drainMark.
func (c *Conn) Ping(payload [8]byte) {
	c.out = append(appendFrameHeader(c.out, 8, framePing, 0, 0), payload[:]...)
}

// Drain tells the peer to open no more streams. Those that are open go on. A server says it twice, so that no
// stream is refused which was on its way (RFC 9113, section 6.8).
func (c *Conn) Drain() {
	if c.err != nil || c.draining || c.warned {
		return
	}
	if !c.cfg.Server {
		c.draining = true
		c.goAway(c.lastPeer, NoError, "")
		return
	}
	c.warned = true
	c.goAway(maxStreamID, NoError, "")
	c.Ping([8]byte([]byte(drainMark)))
}

func (c *Conn) onPong(payload [8]byte) {
	if string(payload[:]) == drainMark {
		c.Farewell()
	}
	c.event(Event{Kind: Pong})
}

// Farewell ends what Drain has begun: no stream is taken any more. The peer's answer to the warning brings it about; who
// waits for a peer that may be gone calls it after a while.
func (c *Conn) Farewell() {
	if c.err == nil && c.warned && !c.draining {
		c.draining = true
		c.goAway(c.lastPeer, NoError, "")
	}
}

// Drained reports whether all that was to be done before a farewell is done: no stream is open, none can come.
func (c *Conn) Drained() bool { return (c.draining || c.gone) && len(c.streams) == 0 }

func (c *Conn) goAway(last uint32, code Code, why string) {
	c.out = appendFrameHeader(c.out, 8+len(why), frameGoAway, 0, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, last)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
	c.out = append(c.out, why...)
}
