package h2

import (
	"fmt"
	"strconv"

	"golang.org/x/net/http2/hpack"
)

// Field is a header's name, in lower case, and its value.
type Field struct{ Name, Value string }

// Head is the header block that opens one direction of a stream.
type Head struct {
	Method, Authority string // of a request
	HasAuthority      bool
	HasScheme         bool
	HasPath           bool
	HasProtocol       bool
	Status            int // of a response
	Fields            []Field
	TooLarge          bool // Fields are cut: the block is over the limit
}

// fieldOverhead is what the standard adds for each field when it counts a header list (RFC 9113, section 6.5.2).
const fieldOverhead = 32

// maxContinuations bounds how finely a header block may be cut.
const maxContinuations = 64

// block decodes one header block as its pieces come, within limits.
type block struct {
	dec *hpack.Decoder
	max int // decoded bytes, as the standard counts them

	head    Head
	size    int
	encoded int
	pieces  int
	regular bool   // a field that is not a pseudo-header was seen
	bad     string // why the block is malformed
	seen    uint8  // pseudo-headers, by bit
}

func newBlock(limit int) *block {
	b := &block{max: limit}
	b.dec = hpack.NewDecoder(4096, b.emit)
	b.dec.SetMaxStringLength(limit)
	return b
}

func (b *block) begin() {
	b.head, b.size, b.encoded, b.pieces, b.regular, b.bad = Head{}, 0, 0, 0, false, ""
	b.seen = 0
	b.dec.SetEmitEnabled(true)
}

// write decodes a piece. Limits hold while decoding, so that a small block cannot grow into a large one.
func (b *block) write(p []byte) *Error {
	if b.encoded += len(p); b.encoded > 2*b.max {
		return connError(EnhanceYourCalm, "header block of more than %d bytes", 2*b.max)
	}
	if _, err := b.dec.Write(p); err != nil {
		return connError(CompressionError, "header block: %v", err)
	}
	return nil
}

func (b *block) end() *Error {
	if err := b.dec.Close(); err != nil {
		return connError(CompressionError, "header block: %v", err)
	}
	return nil
}

func (b *block) emit(f hpack.HeaderField) {
	if b.size += len(f.Name) + len(f.Value) + fieldOverhead; b.size > b.max {
		b.head.TooLarge = true
		b.dec.SetEmitEnabled(false)
		return
	}
	if b.bad != "" {
		return
	}
	if len(f.Name) > 0 && f.Name[0] == ':' {
		b.bad = b.pseudo(f.Name, f.Value)
		return
	}
	b.regular = true
	if b.bad = checkField(f.Name, f.Value); b.bad == "" {
		b.head.Fields = append(b.head.Fields, Field{f.Name, f.Value})
	}
}

func (b *block) pseudo(name, value string) string {
	if b.regular {
		return "pseudo-header after an ordinary one"
	}
	if !validValue(value) {
		return fmt.Sprintf("pseudo-header %q with the value %q", name, value)
	}
	h, bit := &b.head, uint8(0)
	switch name {
	case ":method":
		h.Method, bit = value, 1
	case ":authority":
		h.Authority, h.HasAuthority, bit = value, true, 2
	case ":scheme":
		h.HasScheme, bit = true, 4
	case ":path":
		h.HasPath, bit = true, 8
	case ":protocol":
		h.HasProtocol, bit = true, 16
	case ":status":
		n, err := strconv.Atoi(value)
		if err != nil || len(value) != 3 || n < 100 {
			return fmt.Sprintf("status %q", value)
		}
		h.Status, bit = n, 32
	default:
		return fmt.Sprintf("unknown pseudo-header %q", name)
	}
	if b.seen&bit != 0 {
		return fmt.Sprintf("pseudo-header %q twice", name)
	}
	b.seen |= bit
	return ""
}

// checkField says why a field is not allowed, or "".
func checkField(name, value string) string {
	if name == "" {
		return "header without a name"
	}
	for i := 0; i < len(name); i++ {
		if !nameByte(name[i]) {
			return fmt.Sprintf("header name %q", name)
		}
	}
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return fmt.Sprintf("header %q, which has no place in HTTP/2", name)
	case "te":
		if value != "trailers" {
			return fmt.Sprintf("header te with %q", value)
		}
	}
	if !validValue(value) {
		return fmt.Sprintf("header %q with the value %q", name, value)
	}
	return ""
}

// nameByte admits the characters of a token, without upper case (RFC 9113, section 8.2.1).
func nameByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}

func validValue(v string) bool {
	for i := 0; i < len(v); i++ {
		if c := v[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return v == "" || !blank(v[0]) && !blank(v[len(v)-1])
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// Indices of HPACK's static table (RFC 7541, appendix A).
const (
	staticAuthority = 1
	staticMethod    = 2
	staticStatus200 = 8
)

// appendField encodes a field without touching any dynamic table, so that the encoder has no state.
func appendField(dst []byte, static uint64, name, value string) []byte {
	dst = appendInt(dst, 4, static)
	if static == 0 {
		dst = append(appendInt(dst, 7, uint64(len(name))), name...)
	}
	return append(appendInt(dst, 7, uint64(len(value))), value...)
}

// appendInt encodes an integer with a prefix of n bits whose leading bits are zero (RFC 7541, section 5.1).
func appendInt(dst []byte, n byte, v uint64) []byte {
	limit := uint64(1)<<n - 1
	if v < limit {
		return append(dst, byte(v))
	}
	dst = append(dst, byte(limit))
	for v -= limit; v >= 128; v >>= 7 {
		dst = append(dst, byte(v&0x7f|0x80))
	}
	return append(dst, byte(v))
}

// appendFields checks and encodes ordinary fields.
func appendFields(dst []byte, fields []Field) ([]byte, error) {
	for _, f := range fields {
		if why := checkField(f.Name, f.Value); why != "" {
			return nil, fmt.Errorf("http2: %s", why)
		}
		dst = appendField(dst, 0, f.Name, f.Value)
	}
	return dst, nil
}

func listSize(fields []Field) int {
	n := 0
	for _, f := range fields {
		n += len(f.Name) + len(f.Value) + fieldOverhead
	}
	return n
}

// CheckField says why a field must not be sent, or "".
func CheckField(f Field) string { return checkField(f.Name, f.Value) }
