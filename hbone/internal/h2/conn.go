package h2

import "encoding/binary"

// Config says which end we are and what we allow the peer.
type Config struct {
	Server          bool
	StreamWindow    int // granted to each stream at first
	MaxStreamWindow int // granted to a stream whose application keeps up
	ConnWindow      int // granted to all streams together
	MaxFrame        int // longest frame accepted
	MaxHeaderList   int // decoded size of a header block
	MaxStreams      int // open at once
}

// Kind is what an Event tells.
type Kind uint8

// The kinds of events.
const (
	Ready    Kind = iota + 1 // the peer's first SETTINGS have come
	Request                  // a stream was opened; Head, and End if nothing follows
	Response                 // a stream was answered; Head, and End if nothing follows
	Data                     // bytes arrived; they alias what was fed
	End                      // the peer will send no more on the stream
	Reset                    // the stream is gone: by the peer, or by us because the peer broke a rule
	Writable                 // a stream's window has opened; stream 0: all of them
	Pong                     // a Ping was answered
	GoAway                   // the peer accepts no more streams
)

// Event is something that the driver of a connection has to know.
type Event struct {
	Kind   Kind
	Stream uint32
	Data   []byte
	Head   *Head
	End    bool
	Code   Code
	Local  bool   // of Reset: we did it
	Why    string // of Reset and GoAway
}

// Conn is one end of an HTTP/2 connection. It is not safe for concurrent use.
type Conn struct {
	cfg    Config
	err    *Error // once set, the connection is over
	out    []byte
	events []Event
	budget budget

	// parsing
	preface   int     // bytes of the client's preface seen
	settled   bool    // the peer's first SETTINGS have come
	header    [9]byte // of the frame that is coming
	headerLen int
	inFrame   bool
	frame     frame
	prefix    []byte // pad length and priority
	control   []byte // payload of a short frame
	block     *block
	headersOf uint32 // stream whose header block is open, 0: none
	endAfter  bool   // the open header block ends the stream

	streams    map[uint32]*stream
	lastPeer   uint32 // highest stream that the peer opened
	next       uint32 // next stream that we open
	ours       resets
	controlOut int // bytes of control answers in out

	sendWindow, recvWindow, owed int
	grown, unearned              int
	peerWindow, peerMaxFrame     int
	peerMaxStreams               uint32
	peerHeaderList               uint32

	warned, draining bool // we sent the first, the last GOAWAY
	gone             bool // the peer sent one
}

type stream struct {
	id                     uint32
	sendWindow, recvWindow int
	target                 int // size of the window that we keep open
	owed                   int // consumed, but not yet granted again
	queued                 int // received, but not yet consumed
	answered               bool
	sentEnd, recvEnd       bool
}

// resets remembers the last streams that we reset, on which the peer may still be sending.
type resets struct {
	ids [128]uint32
	at  int
}

func (r *resets) add(id uint32) { r.ids[r.at%len(r.ids)] = id; r.at++ }

func (r *resets) has(id uint32) bool {
	for _, x := range r.ids {
		if x == id {
			return true
		}
	}
	return false
}

// New makes a connection; what it has to say first is in Out.
func New(cfg Config) *Conn {
	c := &Conn{
		cfg: cfg, budget: newBudget(), block: newBlock(cfg.MaxHeaderList), streams: map[uint32]*stream{}, next: 1,
		sendWindow: defaultWindow, recvWindow: defaultWindow, peerWindow: defaultWindow, peerMaxFrame: defaultMaxFrame,
		peerMaxStreams: maxStreamID, peerHeaderList: 1<<32 - 1,
	}
	var s []byte
	if !cfg.Server {
		c.out = append(c.out, Preface...)
		s = appendSetting(s, settingEnablePush, 0)
	} else {
		s = appendSetting(s, settingMaxStreams, uint32(cfg.MaxStreams))
	}
	s = appendSetting(s, settingInitialWindow, uint32(cfg.StreamWindow))
	s = appendSetting(s, settingMaxFrame, uint32(cfg.MaxFrame))
	s = appendSetting(s, settingMaxHeaderList, uint32(cfg.MaxHeaderList))
	c.out = append(appendFrameHeader(c.out, len(s), frameSettings, 0, 0), s...)
	if more := cfg.ConnWindow - defaultWindow; more > 0 {
		c.windowUpdate(0, more)
		c.recvWindow += more
	}
	return c
}

// Feed takes bytes from the peer and appends to events what they mean. An error ends the connection: what Out
// then holds is the farewell.
func (c *Conn) Feed(in []byte, events []Event) ([]Event, error) {
	if c.err != nil {
		return events, c.err
	}
	c.events = events
	err := c.feed(in)
	events, c.events = c.events, nil
	if err != nil {
		c.Abort(err)
		return events, err
	}
	return events, nil
}

// Abort ends the connection with a reason for the peer.
func (c *Conn) Abort(err *Error) {
	if c.err == nil {
		c.err = err
		c.goAway(c.lastPeer, err.Code, err.Why)
	}
}

// Out is what waits to be sent. Take it with TakeOut.
func (c *Conn) Out() int { return len(c.out) }

// TakeOut gives what waits to be sent, and takes an empty buffer for what comes next.
func (c *Conn) TakeOut(empty []byte) []byte {
	out := c.out
	c.out, c.controlOut = empty[:0], 0
	return out
}

// Trim lets go of buffers that grew, when nothing waits to be sent.
func (c *Conn) Trim() {
	if len(c.out) == 0 {
		c.out = nil
	}
}

func (c *Conn) event(e Event) { c.events = append(c.events, e) }

func (c *Conn) feed(in []byte) *Error {
	if c.cfg.Server && c.preface < len(Preface) {
		n := min(len(in), len(Preface)-c.preface)
		if string(in[:n]) != Preface[c.preface:c.preface+n] {
			return connError(ProtocolError, "not the preface of HTTP/2")
		}
		c.preface += n
		in = in[n:]
	}
	for len(in) > 0 || c.inFrame && c.frame.left == 0 {
		if !c.inFrame {
			n := copy(c.header[c.headerLen:], in)
			in = in[n:]
			if c.headerLen += n; c.headerLen < FrameHeaderLen {
				return nil
			}
			c.headerLen, c.inFrame = 0, true
			c.frame = parseFrameHeader(c.header[:])
			if err := c.begin(&c.frame); err != nil {
				return err
			}
		}
		n := min(len(in), c.frame.left)
		if n > 0 {
			m, err := c.payload(&c.frame, in[:n])
			if err != nil {
				return err
			}
			in = in[m:]
			c.frame.left -= m
		}
		if c.frame.left == 0 {
			c.inFrame = false
			if err := c.finish(&c.frame); err != nil {
				return err
			}
			if c.controlOut > maxControlOut {
				return connError(EnhanceYourCalm, "answers pile up unread")
			}
		}
	}
	return nil
}

// begin judges a frame by its header.
func (c *Conn) begin(f *frame) *Error {
	if f.length > c.cfg.MaxFrame {
		return connError(FrameSizeError, "frame of %d bytes, at most %d are accepted", f.length, c.cfg.MaxFrame)
	}
	if !c.settled && (f.kind != frameSettings || f.has(flagAck)) {
		return connError(ProtocolError, "first frame is not SETTINGS")
	}
	if c.headersOf != 0 && (f.kind != frameContinuation || f.stream != c.headersOf) {
		return connError(ProtocolError, "frame within a header block")
	}
	c.prefix, c.control = c.prefix[:0], c.control[:0]
	switch f.kind {
	case frameData:
		return c.beginData(f)
	case frameHeaders:
		return c.beginHeaders(f)
	case frameContinuation:
		if c.headersOf == 0 {
			return connError(ProtocolError, "CONTINUATION without a header block")
		}
		if c.block.pieces++; c.block.pieces > maxContinuations {
			return connError(EnhanceYourCalm, "header block in more than %d pieces", maxContinuations)
		}
		return nil
	}
	if err := c.budget.frame(); err != nil {
		return err
	}
	return checkControl(f)
}

// maxSettings bounds a SETTINGS frame; the standard knows eight.
const maxSettings = 64

// maxControl is how much of a GOAWAY's debug data is kept.
const maxControl = maxSettings * 6

// payload takes bytes of a frame, and says how many.
func (c *Conn) payload(f *frame, p []byte) (int, *Error) {
	if f.prefix > 0 {
		n := min(f.prefix, len(p))
		c.prefix = append(c.prefix, p[:n]...)
		if f.prefix -= n; f.prefix == 0 && f.has(flagPadded) {
			f.pad = int(c.prefix[0])
			if f.pad > f.left-n {
				return 0, connError(ProtocolError, "padding longer than its frame")
			}
			if f.kind == frameData {
				c.consumedPadding(f.stream, 1+f.pad)
			}
		}
		if f.prefix == 0 && f.kind == frameHeaders && f.has(flagPriority) {
			return n, checkDependency(f.stream, c.prefix[len(c.prefix)-5:])
		}
		return n, nil
	}
	n := min(len(p), max(0, f.left-f.pad)) // less than nothing: within the padding
	if n == 0 {
		return min(len(p), f.left), nil // padding
	}
	p = p[:n]
	switch f.kind {
	case frameData:
		c.data(f.stream, p)
	case frameHeaders, frameContinuation:
		return n, c.block.write(p)
	case frameSettings, framePing, frameGoAway, frameWindowUpdate, frameReset, framePriority:
		c.control = append(c.control, p[:min(n, maxControl-len(c.control))]...)
	}
	return n, nil
}

// finish acts on a frame that has come whole.
func (c *Conn) finish(f *frame) *Error {
	if f.prefix > 0 {
		return connError(FrameSizeError, "frame of type %d too short for its flags", f.kind)
	}
	p := c.control
	switch f.kind {
	case frameData:
		if f.has(flagEndStream) {
			c.remoteEnd(f.stream)
		}
	case frameHeaders, frameContinuation:
		if f.has(flagEndHeaders) {
			return c.headersDone()
		}
	case frameReset:
		return c.onReset(f.stream, Code(binary.BigEndian.Uint32(p)))
	case frameSettings:
		return c.onSettings(f, p)
	case framePing:
		if f.has(flagAck) {
			c.onPong([8]byte(p))
			return nil
		}
		c.answer(func(out []byte) []byte { return append(appendFrameHeader(out, 8, framePing, flagAck, 0), p...) })
	case frameGoAway:
		c.onGoAway(binary.BigEndian.Uint32(p)&maxStreamID, Code(binary.BigEndian.Uint32(p[4:])), p[8:])
	case frameWindowUpdate:
		return c.onWindowUpdate(f.stream, p)
	case framePriority:
		return checkDependency(f.stream, p)
	}
	return nil
}
