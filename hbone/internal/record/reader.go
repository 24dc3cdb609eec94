package record

import (
	"crypto/tls"
	"io"
	"net"
)

// Messages of the handshake protocol that may come behind a handshake (RFC 8446, section 4.6).
const (
	handshakeNewSessionTicket = 4
	handshakeKeyUpdate        = 24
)

const (
	// maxMessage is the longest handshake message that is read.
	maxMessage = 64 << 10
	// maxUseless is how many records may come that bring no data, until one does.
	maxUseless = 16
)

// Reader opens what the peer sends.
type Reader struct {
	half
	client  bool   // we are
	message []byte // handshake messages that have not come whole
	useless int
	asked   bool
	err     error
}

// Open opens a whole record in place, and acts on what is not application data. Nothing is in data then. io.EOF means
// that the peer ended its direction; the end of the connection without it is none. After an error nothing can be opened.
func (r *Reader) Open(rec []byte) (data []byte, err error) {
	if r.err != nil {
		return nil, r.err
	}
	data, err = r.open(rec)
	if err != nil {
		r.err = err
		return nil, err
	}
	return data, nil
}

func (r *Reader) open(rec []byte) ([]byte, error) {
	if n, err := Len(rec); err != nil {
		return nil, err
	} else if n != len(rec) {
		return nil, broken(alertDecodeError, "%d bytes of a record of %d", len(rec), n)
	}
	inner, err := r.aead.Open(rec[HeaderLen:HeaderLen], r.step(), rec[HeaderLen:], rec[:HeaderLen])
	if err != nil {
		return nil, broken(alertBadRecordMAC, "not sealed by the peer, or changed on its way")
	}
	if len(inner) > MaxContent+1 {
		return nil, broken(alertRecordOverflow, "%d bytes of content", len(inner)-1)
	}
	end := len(inner) - 1
	for end >= 0 && inner[end] == 0 { // padding
		end--
	}
	if end < 0 {
		return nil, broken(alertUnexpectedMessage, "no content type")
	}
	kind, content := inner[end], inner[:end]
	switch kind {
	case typeData:
		if len(r.message) > 0 {
			return nil, broken(alertUnexpectedMessage, "data within a handshake message")
		}
		if len(content) == 0 {
			return nil, r.bored()
		}
		r.useless = 0
		return content, nil
	case typeAlert:
		return nil, r.alert(content)
	case typeHandshake:
		return nil, r.handshake(content)
	}
	return nil, broken(alertUnexpectedMessage, "content type %d", kind)
}

// bored counts a record that brought nothing.
func (r *Reader) bored() error {
	if r.useless++; r.useless > maxUseless {
		return broken(alertUnexpectedMessage, "more than %d records without data", maxUseless)
	}
	return nil
}

func (r *Reader) alert(p []byte) error {
	if len(p) != 2 || len(r.message) > 0 {
		return broken(alertDecodeError, "alert of %d bytes", len(p))
	}
	switch p[1] { // the level means nothing (RFC 8446, section 6)
	case alertCloseNotify:
		return io.EOF
	case alertUserCanceled:
		return r.bored()
	}
	return &net.OpError{Op: "remote error", Err: tls.AlertError(p[1])}
}

// handshake takes a piece of handshake messages.
func (r *Reader) handshake(p []byte) error {
	if len(p) == 0 {
		return broken(alertUnexpectedMessage, "empty handshake record")
	}
	if err := r.bored(); err != nil {
		return err
	}
	r.message = append(r.message, p...)
	for len(r.message) >= 4 {
		m := r.message
		n := 4 + (int(m[1])<<16 | int(m[2])<<8 | int(m[3]))
		if n > maxMessage {
			return broken(alertIllegalParameter, "handshake message of %d bytes", n)
		}
		if len(m) < n {
			return nil
		}
		if err := r.act(m[0], m[4:n], len(m) == n); err != nil {
			return err
		}
		if r.message = m[n:]; len(r.message) == 0 {
			r.message = nil
		}
	}
	return nil
}

// act acts on a handshake message. last says that nothing follows it in its record.
func (r *Reader) act(kind byte, body []byte, last bool) error {
	switch {
	case kind == handshakeNewSessionTicket && r.client:
		return nil // we never resume
	case kind != handshakeKeyUpdate:
		return broken(alertUnexpectedMessage, "handshake message of type %d", kind)
	case len(body) != 1:
		return broken(alertDecodeError, "key update of %d bytes", len(body))
	case body[0] > 1:
		return broken(alertIllegalParameter, "key update with request %d", body[0])
	case !last:
		return broken(alertUnexpectedMessage, "key update within a record")
	}
	r.asked = r.asked || body[0] == 1
	return r.update()
}

// Asked reports, once, whether the peer asked us to Update too.
func (r *Reader) Asked() bool {
	asked := r.asked
	r.asked = false
	return asked
}

// Forget wipes the keys. Nothing can be opened any more.
func (r *Reader) Forget() {
	r.forget()
	if r.err == nil {
		r.err = net.ErrClosed
	}
}
