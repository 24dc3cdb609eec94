package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// How long a client may take (SECURITY, section 6): for a head once it has begun, between two reads or writes of a
// stream, before its first byte, and between two requests (Envoy's default).
const (
	headTimeout  = 10 * time.Second
	streamIdle   = 5 * time.Minute
	firstTimeout = 60 * time.Second
	keepAlive    = time.Hour
	lingerTime   = 500 * time.Millisecond
	lingerBytes  = 256 << 10
)

// conn is one HTTP/1 connection.
type conn struct {
	s    *Server
	nc   net.Conn
	br   *bufio.Reader
	bw   *bufio.Writer
	info *Info

	wmu sync.Mutex // guards bw and the response being written

	mu      sync.Mutex         // guards below
	cancel  context.CancelFunc // of the request being served
	watched chan error         // set while a goroutine waits for the client's next byte
	idle    bool
	closing bool // no further request
	w       *writer
}

func (c *conn) readDeadline(d time.Duration) {
	c.nc.SetReadDeadline(time.Now().Add(d)) //nolint:errcheck // a closed connection fails at the read
}

// drain lets the request being served finish and closes the connection then.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	if c.idle {
		c.readDeadline(-1)
	}
}

func (c *conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// serve answers requests one after the other until the connection ends.
func (c *conn) serve(ctx context.Context) {
	defer c.nc.Close()
	for wait := firstTimeout; ; wait = keepAlive {
		if err := c.awaitRequest(wait); err != nil {
			return
		}
		c.readDeadline(headTimeout)
		head, err := readHead(c.br)
		if err != nil {
			c.refuse(err)
			return
		}
		req, f, err := parseHead(head)
		if err != nil {
			c.refuse(err)
			return
		}
		if !c.one(ctx, req, f) {
			return
		}
	}
}

// awaitRequest waits for the first byte of the next request.
func (c *conn) awaitRequest(limit time.Duration) error {
	c.mu.Lock()
	watched := c.watched
	c.watched = nil
	if c.closing {
		c.readDeadline(-1)
		c.mu.Unlock()
		if watched != nil {
			<-watched // it reads from br; what it found is there
		}
		if c.br.Buffered() == 0 {
			return errors.New("draining")
		}
		return nil
	}
	c.idle = true
	c.readDeadline(limit)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.idle = false
		c.mu.Unlock()
	}()
	if watched != nil {
		return <-watched
	}
	_, err := c.br.Peek(1)
	return err
}

// watchClient looks out for the end of a client that has nothing more to send for the request being served. A byte
// of its next request ends the watch as well.
func (c *conn) watchClient() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched != nil {
		return
	}
	watched := make(chan error, 1)
	c.watched = watched
	cancel := c.cancel
	c.nc.SetReadDeadline(time.Time{}) //nolint:errcheck // a closed connection fails at the read
	c.s.conns.Go(func() {
		_, err := c.br.Peek(1)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && cancel != nil {
			cancel()
		}
		watched <- err
	})
}

// one serves one request and reports whether another may follow.
func (c *conn) one(ctx context.Context, req *http.Request, f framing) bool {
	ctx, cancel := context.WithCancel(context.WithValue(ctx, infoKey{}, c.info))
	defer cancel()
	expect := strings.EqualFold(req.Header.Get("Expect"), "100-continue") && req.ProtoMinor == 1
	b := newBody(c, f, expect)
	w := &writer{c: c, req: req, header: http.Header{}, body: b}
	c.mu.Lock()
	c.cancel, c.w = cancel, w
	c.mu.Unlock()
	req.Body = b
	if b.ended.Load() {
		req.Body = http.NoBody
	}
	req.RemoteAddr = c.nc.RemoteAddr().String()
	req.TLS = c.info.TLS
	w.close = req.ProtoMinor == 0 || hasToken(req.Header["Connection"], "close")
	if b.ended.Load() && !hasToken(req.Header["Connection"], "upgrade") {
		c.watchClient()
	}
	aborted := c.run(w, req.WithContext(ctx))
	if w.hijacked {
		return false
	}
	if !aborted {
		w.finish()
	}
	ended := b.ended.Load()
	b.Close() //nolint:errcheck // always nil
	if aborted || w.err != nil {
		return false
	}
	if w.close || !ended {
		c.linger()
		return false
	}
	return true
}

// run calls the handler; http.ErrAbortHandler means that the answer cannot be completed and must not look complete.
func (c *conn) run(w *writer, req *http.Request) (aborted bool) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			aborted = true
		default:
			panic(p)
		}
	}()
	c.s.Handler.ServeHTTP(w, req)
	return false
}

// refuse answers what could not be read as a request, if it can be answered.
func (c *conn) refuse(err error) {
	var r *refusal
	if !errors.As(err, &r) {
		if !errors.Is(err, os.ErrDeadlineExceeded) || c.isClosing() {
			return
		}
		r = &refusal{http.StatusRequestTimeout, "request timeout"}
	}
	c.s.Refused(c.info, r.status, r.why)
	c.nc.SetWriteDeadline(time.Now().Add(headTimeout)) //nolint:errcheck // a closed connection fails at the write
	body := http.StatusText(r.status)
	fmt.Fprintf(c.bw, "HTTP/1.1 %d %s\r\nContent-Length: %d\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n%s",
		r.status, http.StatusText(r.status), len(body), body)
	if c.bw.Flush() == nil {
		c.linger()
	}
}

// linger closes our side and reads on for a moment: closing with unread bytes would reset the connection, and the
// client might never see our answer.
func (c *conn) linger() {
	if cw, ok := c.nc.(interface{ CloseWrite() error }); !ok || cw.CloseWrite() != nil {
		return
	}
	c.mu.Lock()
	watched := c.watched
	c.watched = nil
	c.mu.Unlock()
	c.readDeadline(lingerTime)
	if watched != nil {
		if err := <-watched; err != nil {
			return
		}
	}
	io.CopyN(io.Discard, c.br, lingerBytes) //nolint:errcheck // nobody is left to tell
}

// sendContinue tells the client to send its body, unless an answer has begun.
func (c *conn) sendContinue() error {
	c.mu.Lock()
	w := c.w
	c.mu.Unlock()
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if w == nil || w.wrote {
		return nil
	}
	if _, err := c.bw.WriteString("HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
		return err
	}
	return c.bw.Flush()
}

// hasToken looks for a word in a comma-separated header.
func hasToken(values []string, word string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), word) {
				return true
			}
		}
	}
	return false
}
