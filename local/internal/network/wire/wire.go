// Package wire reads TCP segments out of Ethernet frames.
package wire

import (
	"encoding/binary"
	"net/netip"
)

// Segment is one TCP segment; Payload may be empty.
type Segment struct {
	From, To netip.AddrPort
	Payload  []byte
}

const (
	ethernet = 14
	etherV4  = 0x0800
	etherV6  = 0x86dd
	tcp      = 6
)

// Parse reads a frame. ok is false for anything that is not a whole, unfragmented TCP segment over IPv4 or IPv6.
// Payload shares the frame's memory.
func Parse(frame []byte) (s Segment, ok bool) {
	if len(frame) < ethernet {
		return s, false
	}
	b := frame[ethernet:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherV4:
		return v4(b)
	case etherV6:
		return v6(b)
	}
	return s, false
}

func v4(b []byte) (s Segment, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 || b[9] != tcp {
		return s, false
	}
	head, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	const moreOrOffset = 0x3fff
	if head < 20 || total < head || total > len(b) || binary.BigEndian.Uint16(b[6:])&moreOrOffset != 0 {
		return s, false
	}
	return segment(netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[head:total])
}

func v6(b []byte) (s Segment, ok bool) {
	if len(b) < 40 || b[0]>>4 != 6 || b[6] != tcp {
		return s, false
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return s, false
	}
	return segment(netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[40:total])
}

func segment(from, to netip.Addr, b []byte) (s Segment, ok bool) {
	if len(b) < 20 {
		return s, false
	}
	head := int(b[12]>>4) * 4
	if head < 20 || head > len(b) {
		return s, false
	}
	return Segment{
		From: netip.AddrPortFrom(from, binary.BigEndian.Uint16(b)), To: netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:])), Payload: b[head:],
	}, true
}
