package hbone

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// Traceparent is the trace that a connection belongs to (W3C Trace Context).
type Traceparent struct {
	Trace [16]byte
	Span  [8]byte
	Flags byte
}

// NewTraceparent begins a trace that is not sampled.
func NewTraceparent() Traceparent {
	var t Traceparent
	_, _ = rand.Read(t.Trace[:]) // never fails
	return t.Child()
}

// Child is a new span of the same trace.
func (t Traceparent) Child() Traceparent {
	_, _ = rand.Read(t.Span[:]) // never fails
	t.Span[0] |= 1              // zero is no span
	return t
}

// String is the header's value: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>.
func (t Traceparent) String() string { return fmt.Sprintf("00-%x-%x-%02x", t.Trace, t.Span, t.Flags) }

// ParseTraceparent reads a header's value of version 0, or what version 0 knows of a later one.
func ParseTraceparent(v string) (Traceparent, error) {
	bad := func() (Traceparent, error) {
		return Traceparent{}, fmt.Errorf("traceparent header %.80q is malformed", v)
	}
	if len(v) < 55 || strings.ToLower(v) != v || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return bad()
	}
	if v[:2] == "ff" || v[:2] == "00" && len(v) != 55 || len(v) > 55 && v[55] != '-' {
		return bad()
	}
	var t Traceparent
	var version, flags [1]byte
	for _, p := range []struct {
		dst []byte
		src string
	}{{version[:], v[:2]}, {t.Trace[:], v[3:35]}, {t.Span[:], v[36:52]}, {flags[:], v[53:55]}} {
		if _, err := hex.Decode(p.dst, []byte(p.src)); err != nil {
			return bad()
		}
	}
	if t.Trace == [16]byte{} || t.Span == [8]byte{} {
		return bad()
	}
	t.Flags = flags[0]
	return t, nil
}
