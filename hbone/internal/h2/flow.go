package h2

import "encoding/binary"

// headroom is how many more streams than are open we keep window for, when streams ask for larger windows.
const headroom = 64

// receive takes n bytes, padding included, out of the windows that we granted.
func (c *Conn) receive(st *stream, n int) *Error {
	if n > c.recvWindow {
		return connError(FlowControlError, "%d bytes of data, the connection's window is %d", n, c.recvWindow)
	}
	c.recvWindow -= n
	if st != nil {
		st.recvWindow -= n
	}
	return nil
}

// Consumed tells that the application took n bytes of a stream, or that they were thrown away. Only then may the
// peer send more.
func (c *Conn) Consumed(id uint32, n int) {
	c.returnToConn(n)
	if st := c.streams[id]; st != nil {
		st.queued -= n
		c.returnToStream(st, n)
	}
}

func (c *Conn) returnToConn(n int) {
	if c.owed += n; c.owed >= c.cfg.ConnWindow/4 {
		c.windowUpdate(0, c.owed)
		c.recvWindow += c.owed
		c.owed = 0
	}
}

func (c *Conn) returnToStream(st *stream, n int) {
	st.owed += n
	if st.recvEnd || st.owed < st.target/4 {
		return
	}
	more := st.owed
	// A stream whose application keeps up gets a larger window. All streams together get no more than the
	// connection's window, so that streams which nobody reads cannot stop the others.
	if next := min(2*st.target, c.cfg.MaxStreamWindow); st.queued <= st.target/4 && next > st.target {
		if grow := next - st.target; c.grown+grow <= c.growthLimit() {
			st.target = next
			c.grown += grow
			more += grow
		}
	}
	c.windowUpdate(st.id, more)
	st.recvWindow += more
	st.owed = 0
}

func (c *Conn) growthLimit() int {
	return c.cfg.ConnWindow - c.cfg.StreamWindow*min(c.cfg.MaxStreams, len(c.streams)+headroom)
}

func (c *Conn) windowUpdate(id uint32, n int) {
	c.out = appendFrameHeader(c.out, 4, frameWindowUpdate, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(n))
}

// onWindowUpdate takes what the peer grants.
func (c *Conn) onWindowUpdate(id uint32, p []byte) *Error {
	n := int(binary.BigEndian.Uint32(p) & maxWindow)
	if id == 0 {
		if n == 0 {
			return connError(ProtocolError, "window update by nothing")
		}
		if c.sendWindow += n; c.sendWindow > maxWindow {
			return connError(FlowControlError, "connection's window above 2^31-1")
		}
		c.event(Event{Kind: Writable})
		return nil
	}
	st, err := c.known(id, "window update")
	if st == nil || err != nil {
		return err
	}
	if n == 0 {
		return c.streamError(st, ProtocolError, "window update by nothing")
	}
	if st.sendWindow += n; st.sendWindow > maxWindow {
		return c.streamError(st, FlowControlError, "stream's window above 2^31-1")
	}
	c.event(Event{Kind: Writable, Stream: id})
	return nil
}

// Window is how many bytes could be sent on a stream now.
func (c *Conn) Window(id uint32) int {
	st := c.streams[id]
	if st == nil || st.sentEnd {
		return 0
	}
	return max(0, min(st.sendWindow, c.sendWindow))
}

// Reserve takes up to want bytes out of the windows, and says how many it got. They may leave in several DATA frames, of
// at most 16384 bytes each: that much every peer takes.
func (c *Conn) Reserve(id uint32, want int) int {
	n := min(want, c.Window(id))
	if n > 0 {
		c.streams[id].sendWindow -= n
		c.sendWindow -= n
		if c.unearned += n; c.unearned >= bytesPerUpdate {
			c.budget.earn(c.unearned / bytesPerUpdate)
			c.unearned %= bytesPerUpdate
		}
	}
	return n
}

// Unreserve gives back n reserved bytes that were not sent. It reports whether that opened the connection's window, for
// which other streams may wait.
func (c *Conn) Unreserve(id uint32, n int) (opened bool) {
	if n == 0 {
		return false
	}
	opened = c.sendWindow <= 0
	c.sendWindow += n
	c.unearned -= n
	if st := c.streams[id]; st != nil {
		st.sendWindow += n
	}
	return opened && c.sendWindow > 0
}
