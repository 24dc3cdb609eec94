package hbone

import (
	"crypto/tls"
	"errors"

	"github.com/ambit-mesh/ambit/hbone/internal/record"
)

// link carries HTTP/2 through TLS records, behind a finished handshake. One goroutine receives, one at a time sends.
type link interface {
	// receive waits for what the peer says, and gives it in pieces that lie in b, which the caller releases. io.EOF means
	// that the peer ended its direction of TLS.
	receive() (b *buffer, pieces [][]byte, err error)
	// send sends parcels in order. Their buffers are of no use afterwards.
	send(batch []parcel) error
	// goodbye ends our direction of TLS.
	goodbye() error
	// complain tells the peer which rule of TLS it broke, if err is about that.
	complain(err error)
	// forget wipes the keys when nobody sends or receives any more.
	forget()
}

// parcel is plaintext on its way out: n bytes in the slots of a buffer, record.MaxContent in each but the last.
type parcel struct {
	b *buffer
	n int
}

// tlsLink leaves the records to crypto/tls, where we do not seal them ourselves: in FIPS mode, and for cipher suites
// other than AES-GCM.
type tlsLink struct {
	tls  *tls.Conn
	wire *wire
	pool *buffers
}

func (l *tlsLink) receive() (*buffer, [][]byte, error) {
	b := l.pool.take(single)
	n, err := l.tls.Read(b.b)
	return b, [][]byte{b.b[:n]}, err
}

func (l *tlsLink) send(batch []parcel) error {
	l.wire.cork()
	for _, p := range batch {
		for i, left := 0, p.n; left > 0; i++ {
			m := min(left, record.MaxContent)
			if _, err := l.tls.Write(p.b.slot(i)[:m]); err != nil {
				return errors.Join(err, l.wire.uncork())
			}
			left -= m
		}
	}
	return l.wire.uncork()
}

func (l *tlsLink) goodbye() error { return l.tls.CloseWrite() }

func (l *tlsLink) complain(error) {} // crypto/tls did

func (l *tlsLink) forget() {}
