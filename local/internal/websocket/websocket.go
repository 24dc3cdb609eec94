// Package websocket is the server's side of RFC 6455, as much as Kubernetes' streams need.
package websocket

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // the handshake's proof of understanding, no secret (RFC 6455, 1.3)
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxMessage bounds what a client may send at once.
const maxMessage = 1 << 20

// writeTime bounds how long a client may take to read what is sent.
const writeTime = 30 * time.Second

// Frames' kinds.
const (
	opMore   = 0
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

// Wanted tells whether a request asks for a websocket.
func Wanted(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && r.Header.Get("Sec-WebSocket-Key") != ""
}

// Conn is an open websocket. One goroutine reads; any may write.
type Conn struct {
	// Protocol is the one that both sides speak.
	Protocol string
	c        net.Conn
	r        *bufio.Reader
	mu       sync.Mutex // held while a frame is written
}

// Accept turns a request into a websocket that speaks the first of the client's protocols that is among known.
func Accept(w http.ResponseWriter, r *http.Request, known []string) (*Conn, error) {
	if !Wanted(r) || r.Header.Get("Sec-WebSocket-Version") != "13" {
		return nil, errors.New("this is no websocket of version 13")
	}
	protocol := ""
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for _, p := range strings.Split(line, ",") {
			if p = strings.TrimSpace(p); protocol == "" && slices.Contains(known, p) {
				protocol = p
			}
		}
	}
	if protocol == "" {
		return nil, fmt.Errorf("the client speaks %q, not %s", r.Header.Values("Sec-WebSocket-Protocol"), strings.Join(known, " or "))
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	conn := &Conn{Protocol: protocol, c: c, r: rw.Reader}
	_, err = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
		proof(r.Header.Get("Sec-WebSocket-Key")), protocol)
	if err = errors.Join(err, c.SetDeadline(time.Time{})); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return conn, nil
}

func proof(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Read gives the next whole message. It answers pings, and ends with io.EOF when the client closes.
func (c *Conn) Read() ([]byte, error) {
	var message []byte
	begun := false
	for {
		f, err := readFrame(c.r)
		if err != nil {
			return nil, err
		}
		switch f.op {
		case opPing:
			if err := c.frame(opPong, f.payload); err != nil {
				return nil, err
			}
			continue
		case opPong:
			continue
		case opClose:
			return nil, errors.Join(io.EOF, c.frame(opClose, f.payload))
		case opMore:
			if !begun {
				return nil, errors.New("a message goes on that did not begin")
			}
		default:
			if begun {
				return nil, errors.New("a message begins inside another")
			}
		}
		begun = true
		if len(message)+len(f.payload) > maxMessage {
			return nil, fmt.Errorf("a message of more than %d bytes", maxMessage)
		}
		message = append(message, f.payload...)
		if f.last {
			return message, nil
		}
	}
}

// Write sends one message: a channel and what it carries.
func (c *Conn) Write(channel byte, data []byte) error {
	return c.frame(opBinary, append([]byte{channel}, data...))
}

// Close says that this is the end, and ends.
func (c *Conn) Close() error {
	const normal = 1000
	err := c.frame(opClose, binary.BigEndian.AppendUint16(nil, normal))
	return errors.Join(err, c.c.Close())
}

// Cut ends without a word.
func (c *Conn) Cut() { c.c.Close() }

func (c *Conn) frame(op byte, payload []byte) error {
	head := []byte{0x80 | op}
	switch n := len(payload); {
	case n < 126:
		head = append(head, byte(n))
	case n <= 0xffff:
		head = binary.BigEndian.AppendUint16(append(head, 126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 127), uint64(n))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.c.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err := c.c.Write(append(head, payload...))
	return err
}

// frame is one of a client.
type frame struct {
	last    bool
	op      byte
	payload []byte
}

// readFrame reads one frame. A client's are masked, and those that steer are small and whole (RFC 6455, 5.1 and 5.5).
func readFrame(r *bufio.Reader) (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{last: head[0]&0x80 != 0, op: head[0] & 0x0f}
	n := uint64(head[1] & 0x7f)
	switch {
	case head[0]&0x70 != 0:
		return f, errors.New("a frame with extensions that nobody agreed on")
	case head[1]&0x80 == 0:
		return f, errors.New("a client's frame that is not masked")
	case !slices.Contains([]byte{opMore, opText, opBinary, opClose, opPing, opPong}, f.op):
		return f, fmt.Errorf("a frame of the unknown kind %d", f.op)
	case f.op >= opClose && (n > 125 || !f.last):
		return f, errors.New("a steering frame that is large or in parts")
	}
	size := map[uint64]int{126: 2, 127: 8}[n]
	var more [8]byte
	if _, err := io.ReadFull(r, more[8-size:]); err != nil {
		return f, err
	}
	if size > 0 {
		n = binary.BigEndian.Uint64(more[:])
	}
	if n > maxMessage {
		return f, fmt.Errorf("a frame of %d bytes, at most %d are taken", n, maxMessage)
	}
	var mask [4]byte
	if _, err := io.ReadFull(r, mask[:]); err != nil {
		return f, err
	}
	f.payload = make([]byte, n)
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return f, err
	}
	for i := range f.payload {
		f.payload[i] ^= mask[i%4]
	}
	return f, nil
}
