package h2

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// NoRoom is why no stream could be opened now: it may be tried on another connection.
type NoRoom string

func (e NoRoom) Error() string { return "http2: " + string(e) }

const (
	errGone NoRoom = "the connection takes no more streams"
	errFull NoRoom = "the connection has as many streams as it may"
)

func (c *Conn) mine(id uint32) bool { return id%2 == 1 != c.cfg.Server }

// known gives an open stream; nil if it is closed, an error if it was never opened.
func (c *Conn) known(id uint32, what string) (*stream, *Error) {
	if st := c.streams[id]; st != nil {
		return st, nil
	}
	if c.mine(id) && id < c.next || !c.mine(id) && id <= c.lastPeer {
		return nil, nil
	}
	return nil, connError(ProtocolError, "%s on stream %d, which is idle", what, id)
}

func (c *Conn) add(id uint32) *stream {
	st := &stream{id: id, sendWindow: c.peerWindow, recvWindow: c.cfg.StreamWindow, target: c.cfg.StreamWindow}
	c.streams[id] = st
	return st
}

// drop forgets a stream.
func (c *Conn) drop(id uint32) {
	if st := c.streams[id]; st != nil {
		c.grown -= st.target - c.cfg.StreamWindow
		delete(c.streams, id)
	}
}

func (c *Conn) dropEnded(st *stream) {
	if st.sentEnd && st.recvEnd {
		c.budget.earn(framesPerStream)
		c.drop(st.id)
	}
}

// streamError resets a stream whose peer broke a rule.
func (c *Conn) streamError(st *stream, code Code, why string) *Error {
	c.reset(st.id, code)
	c.event(Event{Kind: Reset, Stream: st.id, Code: code, Local: true, Why: why})
	return c.budget.reset()
}

func (c *Conn) reset(id uint32, code Code) {
	c.drop(id)
	c.ours.add(id)
	c.answer(func(out []byte) []byte {
		return binary.BigEndian.AppendUint32(appendFrameHeader(out, 4, frameReset, 0, id), uint32(code))
	})
}

func (c *Conn) beginData(f *frame) *Error {
	if f.stream == 0 {
		return connError(ProtocolError, "DATA on stream 0")
	}
	if f.length == 0 && !f.has(flagEndStream) {
		if err := c.budget.frame(); err != nil {
			return err
		}
	}
	if f.has(flagPadded) {
		f.prefix = 1
	}
	st, err := c.known(f.stream, "DATA")
	if err != nil {
		return err
	}
	if err := c.receive(st, f.length); err != nil {
		return err
	}
	switch {
	case st == nil && c.ours.has(f.stream):
		return nil // sent before our reset arrived
	case st == nil:
		c.reset(f.stream, StreamClosed)
		return c.budget.reset()
	case st.recvEnd:
		return c.streamError(st, StreamClosed, "DATA after the end")
	case !c.cfg.Server && !st.answered:
		return c.streamError(st, ProtocolError, "DATA before the response")
	case st.recvWindow < 0:
		return c.streamError(st, FlowControlError, "more data than the stream's window")
	}
	return nil
}

func (c *Conn) data(id uint32, p []byte) {
	st := c.streams[id]
	if st == nil {
		c.returnToConn(len(p))
		return
	}
	st.queued += len(p)
	c.event(Event{Kind: Data, Stream: id, Data: p})
}

func (c *Conn) consumedPadding(id uint32, n int) {
	c.returnToConn(n)
	if st := c.streams[id]; st != nil {
		c.returnToStream(st, n)
	}
}

func (c *Conn) remoteEnd(id uint32) {
	if st := c.streams[id]; st != nil {
		st.recvEnd = true
		c.event(Event{Kind: End, Stream: id})
		c.dropEnded(st)
	}
}

func (c *Conn) onReset(id uint32, code Code) *Error {
	st, err := c.known(id, "RST_STREAM")
	if st == nil || err != nil {
		return err
	}
	c.drop(id)
	c.event(Event{Kind: Reset, Stream: id, Code: code, Why: "reset by peer"})
	if c.cfg.Server && !st.answered {
		return c.budget.reset()
	}
	if st.answered {
		c.budget.earn(framesPerStream)
	}
	return nil
}

func (c *Conn) beginHeaders(f *frame) *Error {
	if f.stream == 0 {
		return connError(ProtocolError, "HEADERS on stream 0")
	}
	if f.has(flagPadded) {
		f.prefix++
	}
	if f.has(flagPriority) {
		f.prefix += 5
	}
	if f.prefix > f.length {
		return connError(FrameSizeError, "HEADERS too short for its flags")
	}
	if opens := c.cfg.Server && !c.mine(f.stream) && f.stream > c.lastPeer; !opens {
		st, err := c.known(f.stream, "HEADERS")
		switch {
		case err != nil:
			return err
		case st == nil && !c.ours.has(f.stream):
			return connError(StreamClosed, "HEADERS on stream %d, which is closed", f.stream)
		}
	}
	if f.length == 0 {
		if err := c.budget.frame(); err != nil {
			return err
		}
	}
	c.headersOf, c.endAfter = f.stream, f.has(flagEndStream)
	c.block.begin()
	return nil
}

// headersDone acts on a whole header block.
func (c *Conn) headersDone() *Error {
	id := c.headersOf
	c.headersOf = 0
	if err := c.block.end(); err != nil {
		return err
	}
	head := c.block.head
	st := c.streams[id]
	switch {
	case st == nil && c.cfg.Server && id > c.lastPeer:
		return c.onRequest(id, &head)
	case st == nil:
		return nil // sent before our reset arrived; decoded only to keep the tables equal
	case st.recvEnd:
		return c.streamError(st, StreamClosed, "HEADERS after the end")
	case c.cfg.Server || st.answered:
		return c.onTrailers(st, &head)
	}
	return c.onResponse(st, &head)
}

func (c *Conn) onRequest(id uint32, head *Head) *Error {
	c.lastPeer = id
	refuse := func(code Code) *Error {
		c.reset(id, code)
		return c.budget.reset()
	}
	if c.draining {
		c.reset(id, RefusedStream)
		return nil
	}
	if len(c.streams) >= c.cfg.MaxStreams {
		return refuse(RefusedStream)
	}
	if why := c.block.bad; why != "" || !head.TooLarge && (head.Method == "" || head.Status != 0) {
		return refuse(ProtocolError)
	}
	st := c.add(id)
	st.recvEnd = c.endAfter
	c.event(Event{Kind: Request, Stream: id, Head: head, End: c.endAfter})
	return nil
}

func (c *Conn) onResponse(st *stream, head *Head) *Error {
	switch {
	case head.TooLarge:
		return c.streamError(st, ProtocolError, "response with headers over the limit")
	case c.block.bad != "":
		return c.streamError(st, ProtocolError, "response with "+c.block.bad)
	case head.Status == 0 || head.Method != "" || head.HasAuthority || head.HasPath || head.HasScheme || head.HasProtocol:
		return c.streamError(st, ProtocolError, "response without a status alone")
	case head.Status < 200:
		if c.endAfter || head.Status == 101 {
			return c.streamError(st, ProtocolError, "interim response that cannot be")
		}
		return c.budget.frame()
	}
	st.answered = true
	st.recvEnd = c.endAfter
	c.event(Event{Kind: Response, Stream: st.id, Head: head, End: c.endAfter})
	c.dropEnded(st)
	return nil
}

// onTrailers takes the end of a stream that carries trailers. A tunnel has no use for them, but some proxies send
// them when they end one.
func (c *Conn) onTrailers(st *stream, head *Head) *Error {
	if !c.endAfter {
		return c.streamError(st, ProtocolError, "second header block that does not end the stream")
	}
	if c.block.bad != "" || c.block.seen != 0 || head.TooLarge {
		return c.streamError(st, ProtocolError, "malformed trailers")
	}
	c.remoteEnd(st.id)
	return nil
}

// Open begins a tunnel to authority.
func (c *Conn) Open(authority string, fields []Field) (uint32, error) {
	switch {
	case c.err != nil:
		return 0, c.err
	case c.gone || c.draining || c.next > maxStreamID-2:
		return 0, errGone
	case len(c.streams) >= c.cfg.MaxStreams || uint64(len(c.streams)) >= uint64(c.peerMaxStreams):
		return 0, errFull
	}
	if uint64(listSize(fields)+len(authority)+128) > uint64(c.peerHeaderList) {
		return 0, fmt.Errorf("http2: headers of more than %d bytes, which the peer does not take", c.peerHeaderList)
	}
	block := appendField(nil, staticMethod, "", "CONNECT")
	block = appendField(block, staticAuthority, "", authority)
	block, err := appendFields(block, fields)
	if err != nil {
		return 0, err
	}
	id := c.next
	c.next += 2
	c.add(id)
	c.appendBlock(id, block, 0)
	return id, nil
}

// Respond answers a request; with end, nothing follows.
func (c *Conn) Respond(id uint32, status int, fields []Field, end bool) error {
	st := c.streams[id]
	if st == nil {
		return fmt.Errorf("http2: stream %d is closed", id)
	}
	block := []byte{0x80 | staticStatus200}
	if status != 200 {
		block = appendField(nil, staticStatus200, "", strconv.Itoa(status))
	}
	block, err := appendFields(block, fields)
	if err != nil {
		return err
	}
	flags := byte(0)
	if end {
		flags = flagEndStream
	}
	st.answered, st.sentEnd = true, end
	c.appendBlock(id, block, flags)
	c.dropEnded(st)
	return nil
}

// appendBlock sends a header block, in pieces that the peer takes.
func (c *Conn) appendBlock(id uint32, block []byte, flags byte) {
	kind := byte(frameHeaders)
	for {
		n := min(len(block), c.peerMaxFrame)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		c.out = append(appendFrameHeader(c.out, n, kind, flags, id), block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return
		}
		kind, flags = frameContinuation, 0
	}
}

// SendEnd ends our direction of a stream.
func (c *Conn) SendEnd(id uint32) {
	if st := c.streams[id]; st != nil && !st.sentEnd {
		st.sentEnd = true
		c.out = appendFrameHeader(c.out, 0, frameData, flagEndStream, id)
		c.dropEnded(st)
	}
}

// Reset ends both directions of a stream at once.
func (c *Conn) Reset(id uint32, code Code) {
	if c.streams[id] != nil {
		c.drop(id)
		c.ours.add(id)
		c.out = binary.BigEndian.AppendUint32(appendFrameHeader(c.out, 4, frameReset, 0, id), uint32(code))
	}
}

// Streams is how many streams are open.
func (c *Conn) Streams() int { return len(c.streams) }

// Settled reports whether the peer's first SETTINGS have come.
func (c *Conn) Settled() bool { return c.settled }

// Room is how many streams may be opened now.
func (c *Conn) Room() int {
	if c.err != nil || c.gone || c.draining || c.next > maxStreamID-2 {
		return 0
	}
	return max(0, min(c.cfg.MaxStreams, int(c.peerMaxStreams))-len(c.streams))
}

// Gone reports whether the connection takes no more streams.
func (c *Conn) Gone() bool { return c.err != nil || c.gone || c.draining || c.next > maxStreamID-2 }
