// Package h2 is HTTP/2 for CONNECT tunnels as a state machine over bytes: no goroutine, no clock, no socket.
package h2

import (
	"encoding/binary"
	"fmt"
)

// Preface is what a client sends first (RFC 9113, section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// FrameHeaderLen is the length of every frame's header.
const FrameHeaderLen = 9

// Frame types (RFC 9113, section 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePush         = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const (
	settingHeaderTableSize = 0x1
	settingEnablePush      = 0x2
	settingMaxStreams      = 0x3
	settingInitialWindow   = 0x4
	settingMaxFrame        = 0x5
	settingMaxHeaderList   = 0x6
	settingEnableConnect   = 0x8
)

const (
	defaultWindow   = 65535
	defaultMaxFrame = 16384
	maxWindow       = 1<<31 - 1
	maxStreamID     = 1<<31 - 1
)

// Code says why a stream or a connection ends (RFC 9113, section 7).
type Code uint32

// The codes that are used here.
const (
	NoError          Code = 0x0
	ProtocolError    Code = 0x1
	InternalError    Code = 0x2
	FlowControlError Code = 0x3
	SettingsTimeout  Code = 0x4
	StreamClosed     Code = 0x5
	FrameSizeError   Code = 0x6
	RefusedStream    Code = 0x7
	Cancel           Code = 0x8
	CompressionError Code = 0x9
	ConnectError     Code = 0xa
	EnhanceYourCalm  Code = 0xb
)

// String is the code's name in the standard.
func (c Code) String() string {
	switch c {
	case NoError:
		return "NO_ERROR"
	case ProtocolError:
		return "PROTOCOL_ERROR"
	case InternalError:
		return "INTERNAL_ERROR"
	case FlowControlError:
		return "FLOW_CONTROL_ERROR"
	case SettingsTimeout:
		return "SETTINGS_TIMEOUT"
	case StreamClosed:
		return "STREAM_CLOSED"
	case FrameSizeError:
		return "FRAME_SIZE_ERROR"
	case RefusedStream:
		return "REFUSED_STREAM"
	case Cancel:
		return "CANCEL"
	case CompressionError:
		return "COMPRESSION_ERROR"
	case ConnectError:
		return "CONNECT_ERROR"
	case EnhanceYourCalm:
		return "ENHANCE_YOUR_CALM"
	}
	return fmt.Sprintf("error code %#x", uint32(c))
}

// Error ends a whole connection.
type Error struct {
	Code Code
	Why  string
}

func (e *Error) Error() string { return "http2: " + e.Code.String() + ": " + e.Why }

func connError(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Why: fmt.Sprintf(format, args...)}
}

// frame is a frame's header and how far its payload has come.
type frame struct {
	kind, flags byte
	stream      uint32
	length      int
	prefix      int // bytes of pad length and priority still to come
	pad         int // bytes of padding at the end
	left        int // bytes of payload still to come, padding included
}

func (f *frame) has(flag byte) bool { return f.flags&flag != 0 }

func parseFrameHeader(b []byte) frame {
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	return frame{kind: b[3], flags: b[4], stream: binary.BigEndian.Uint32(b[5:9]) & maxStreamID, length: n, left: n}
}

// AppendFrameHeader appends a frame's header to dst.
func appendFrameHeader(dst []byte, length int, kind, flags byte, stream uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), kind, flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// PutDataHeader writes the header of a DATA frame with n bytes of payload, for callers who send the payload themselves.
func PutDataHeader(dst []byte, stream uint32, n int) {
	appendFrameHeader(dst[:0], n, frameData, 0, stream)
}

func appendSetting(dst []byte, id uint16, v uint32) []byte {
	dst = binary.BigEndian.AppendUint16(dst, id)
	return binary.BigEndian.AppendUint32(dst, v)
}
