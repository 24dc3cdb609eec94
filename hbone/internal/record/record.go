package record

import (
	"encoding/binary"
	"fmt"
)

// Layout of a record: Header, then the content, its type, and the tag.
const (
	HeaderLen  = 5
	TrailerLen = 1 + 16
	// MaxContent is how much a record holds.
	MaxContent = 1 << 14
	// MaxLen is how long a record that a peer sends may be, header included: it may pad.
	MaxLen = HeaderLen + MaxContent + 256
)

// Types of content (RFC 8446, section 5.1).
const (
	typeAlert     = 21
	typeHandshake = 22
	typeData      = 23
)

// Alerts that we send (RFC 8446, section 6).
const (
	alertCloseNotify       = 0
	alertUnexpectedMessage = 10
	alertBadRecordMAC      = 20
	alertRecordOverflow    = 22
	alertIllegalParameter  = 47
	alertDecodeError       = 50
	alertInternalError     = 80
	alertUserCanceled      = 90
)

// Error is why a connection must end: the peer broke a rule, or somebody between changed its records.
type Error struct {
	Alert byte
	Why   string
}

func (e *Error) Error() string { return "TLS record: " + e.Why }

func broken(alert byte, format string, args ...any) error {
	return &Error{alert, fmt.Sprintf(format, args...)}
}

// Len reads the length of a record, header included, from its header.
func Len(header []byte) (int, error) {
	if header[0] != typeData {
		return 0, broken(alertUnexpectedMessage, "content type %d in the clear", header[0])
	}
	n := HeaderLen + int(binary.BigEndian.Uint16(header[3:]))
	switch {
	case n > MaxLen:
		return 0, broken(alertRecordOverflow, "%d bytes, at most %d are accepted", n, MaxLen)
	case n < HeaderLen+TrailerLen:
		return 0, broken(alertBadRecordMAC, "%d bytes are no record", n)
	}
	return n, nil
}

// Writer seals what we send.
type Writer struct {
	half
	// Every is how many records one key seals before Due says so. Default 2^23.
	Every uint64
}

const (
	// dueAfter leaves a batch of any size below mostRecords.
	dueAfter = 1 << 23
	// mostRecords is what one key may seal (RFC 8446, section 5.5, allows 2^24.5).
	mostRecords = 1 << 24
)

// Due reports whether it is time to Update.
func (w *Writer) Due() bool {
	limit := w.Every
	if limit == 0 {
		limit = dueAfter
	}
	return w.seq >= limit
}

// Seal seals a record of application data in place. rec has room for the header in front of the content, and for the
// trailer behind it.
func (w *Writer) Seal(rec []byte) error { return w.seal(rec, typeData) }

func (w *Writer) seal(rec []byte, kind byte) error {
	if w.aead == nil || w.seq >= mostRecords {
		return broken(alertInternalError, "no key to seal with")
	}
	rec[0], rec[1], rec[2] = typeData, 3, 3
	binary.BigEndian.PutUint16(rec[3:], uint16(len(rec)-HeaderLen))
	end := len(rec) - TrailerLen
	rec[end] = kind
	w.aead.Seal(rec[HeaderLen:HeaderLen], w.step(), rec[HeaderLen:end+1], rec[:HeaderLen])
	return nil
}

func (w *Writer) append(dst []byte, kind byte, content ...byte) ([]byte, error) {
	at := len(dst)
	dst = append(dst, make([]byte, HeaderLen+len(content)+TrailerLen)...)
	copy(dst[at+HeaderLen:], content)
	return dst, w.seal(dst[at:], kind)
}

// Update appends a record that tells the peer of our next key, and goes on with that.
func (w *Writer) Update(dst []byte) ([]byte, error) {
	dst, err := w.append(dst, typeHandshake, handshakeKeyUpdate, 0, 0, 1, 0)
	if err != nil {
		return dst, err
	}
	return dst, w.update()
}

// Goodbye appends the record behind which we send nothing: the end of our direction.
func (w *Writer) Goodbye(dst []byte) ([]byte, error) {
	return w.append(dst, typeAlert, 1, alertCloseNotify)
}

// Complain appends the record that tells a peer which rule it broke.
func (w *Writer) Complain(dst []byte, e *Error) ([]byte, error) {
	return w.append(dst, typeAlert, 2, e.Alert)
}

// Forget wipes the keys. Nothing can be sealed any more.
func (w *Writer) Forget() { w.forget() }
