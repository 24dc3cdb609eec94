package wire

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// frame builds what a kernel would send.
func frame(v6 bool, payload string) []byte {
	t := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint16(t, 40000)
	binary.BigEndian.PutUint16(t[2:], 9080)
	t[12] = 5 << 4
	t = append(t, payload...)
	b := make([]byte, 14)
	if v6 {
		b[12], b[13] = 0x86, 0xdd
		ip := make([]byte, 40)
		ip[0], ip[6] = 6<<4, 6
		binary.BigEndian.PutUint16(ip[4:], uint16(len(t)))
		ip[23], ip[39] = 1, 2
		return append(append(b, ip...), t...)
	}
	b[12] = 8
	ip := make([]byte, 20)
	ip[0], ip[9] = 4<<4|5, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(t)))
	copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	return append(append(append(b, ip...), t...), "padding of a short frame"...)
}

func TestParse(t *testing.T) {
	for v6, from := range map[bool]string{false: "10.0.0.1:40000", true: "[::1]:40000"} {
		s, ok := Parse(frame(v6, "GET /"))
		if !ok || s.From != netip.MustParseAddrPort(from) || s.To.Port() != 9080 || string(s.Payload) != "GET /" {
			t.Errorf("v6 %v: %v %v", v6, s, ok)
		}
	}
	f := frame(false, "x")
	for n := range 14 + 20 + 20 {
		if _, ok := Parse(f[:n]); ok {
			t.Errorf("%d bytes of a frame are a segment", n)
		}
	}
	f[14+6] = 0x20 // more fragments
	if _, ok := Parse(f); ok {
		t.Error("a fragment is a segment")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(frame(false, "GET /"))
	f.Add(frame(true, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := Parse(b); ok && len(s.Payload) > len(b) {
			t.Error("payload is longer than its frame")
		}
	})
}
