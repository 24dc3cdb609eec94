package h2

import (
	"encoding/binary"
	"fmt"
)

// checkControl judges the length and the stream of frames that carry neither data nor headers.
func checkControl(f *frame) *Error {
	size := func(want int) *Error {
		if f.length != want {
			return connError(FrameSizeError, "frame of type %d with %d bytes, want %d", f.kind, f.length, want)
		}
		return nil
	}
	onStream := func(want bool) *Error {
		if (f.stream != 0) != want {
			return connError(ProtocolError, "frame of type %d on stream %d", f.kind, f.stream)
		}
		return nil
	}
	var sizeErr, streamErr *Error
	switch f.kind {
	case framePriority:
		sizeErr, streamErr = size(5), onStream(true)
	case frameReset:
		sizeErr, streamErr = size(4), onStream(true)
	case framePing:
		sizeErr, streamErr = size(8), onStream(false)
	case frameWindowUpdate:
		sizeErr = size(4)
	case frameGoAway:
		streamErr = onStream(false)
		if f.length < 8 {
			sizeErr = connError(FrameSizeError, "GOAWAY of %d bytes", f.length)
		}
	case frameSettings:
		streamErr = onStream(false)
		switch {
		case f.has(flagAck) && f.length != 0, f.length%6 != 0:
			sizeErr = connError(FrameSizeError, "SETTINGS of %d bytes", f.length)
		case f.length > maxSettings*6:
			sizeErr = connError(EnhanceYourCalm, "SETTINGS with more than %d entries", maxSettings)
		}
	case framePush:
		return connError(ProtocolError, "PUSH_PROMISE, which was switched off")
	}
	if streamErr != nil {
		return streamErr
	}
	return sizeErr
}

func checkDependency(stream uint32, p []byte) *Error {
	if binary.BigEndian.Uint32(p)&maxStreamID == stream {
		return connError(ProtocolError, "stream %d depends on itself", stream)
	}
	return nil
}

// answer appends a control frame that the peer caused, and counts it.
func (c *Conn) answer(f func([]byte) []byte) {
	before := len(c.out)
	c.out = f(c.out)
	c.controlOut += len(c.out) - before
}

func (c *Conn) onSettings(f *frame, p []byte) *Error {
	if f.has(flagAck) {
		return nil
	}
	for ; len(p) >= 6; p = p[6:] {
		v := binary.BigEndian.Uint32(p[2:])
		switch binary.BigEndian.Uint16(p) {
		case settingEnablePush:
			if v > 1 || !c.cfg.Server && v != 0 {
				return connError(ProtocolError, "ENABLE_PUSH %d", v)
			}
		case settingMaxStreams:
			c.peerMaxStreams = v
		case settingInitialWindow:
			if v > maxWindow {
				return connError(FlowControlError, "INITIAL_WINDOW_SIZE %d", v)
			}
			for _, st := range c.streams {
				if st.sendWindow += int(v) - c.peerWindow; st.sendWindow > maxWindow {
					return connError(FlowControlError, "stream's window above 2^31-1")
				}
			}
			c.peerWindow = int(v)
			c.event(Event{Kind: Writable})
		case settingMaxFrame:
			if v < defaultMaxFrame || v > 1<<24-1 {
				return connError(ProtocolError, "MAX_FRAME_SIZE %d", v)
			}
			c.peerMaxFrame = int(v)
		case settingMaxHeaderList:
			c.peerHeaderList = v
		case settingEnableConnect:
			if v > 1 {
				return connError(ProtocolError, "ENABLE_CONNECT_PROTOCOL %d", v)
			}
		case settingHeaderTableSize: // our encoder keeps no table
		}
	}
	c.answer(func(out []byte) []byte { return appendFrameHeader(out, 0, frameSettings, flagAck, 0) })
	if !c.settled {
		c.settled = true
		c.event(Event{Kind: Ready})
	}
	return nil
}

func (c *Conn) onGoAway(last uint32, code Code, debug []byte) {
	c.gone = true
	c.event(Event{Kind: GoAway, Stream: last, Code: code, Why: fmt.Sprintf("%q", debug)})
	if c.cfg.Server {
		return
	}
	for id := range c.streams {
		if id > last { // never looked at: safe to try elsewhere
			c.drop(id)
			c.event(Event{Kind: Reset, Stream: id, Code: RefusedStream, Why: "peer went away"})
		}
	}
}
