package filter

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/access"
)

// Limits of mirroring: copies under way at once, what a copy may be behind its request, and how long one may take
// where its rule has no timeout.
const (
	maxMirrors   = 1024
	mirrorBehind = 64 << 10
	mirrorTime   = 15 * time.Second
)

// Mirrors sends copies of requests to backends whose answers nobody sees. A copy never makes its request wait: one that
// falls behind is dropped.
type Mirrors struct {
	Send Handler
	Log  *slog.Logger

	slots chan struct{}
	wg    sync.WaitGroup
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
}

// NewMirrors makes mirrors that send by the handler.
func NewMirrors(send Handler, log *slog.Logger) *Mirrors {
	ctx, stop := context.WithCancel(context.Background())
	return &Mirrors{Send: send, Log: log, slots: make(chan struct{}, maxMirrors), ctx: ctx, stop: stop}
}

// Close ends the copies under way.
func (m *Mirrors) Close() {
	m.stop()
	m.wg.Wait()
}

// Filter copies what passes. It comes after all that change the request.
func (m *Mirrors) Filter(next Handler) Handler {
	return HandlerFunc(func(x *Exchange) (*http.Response, error) {
		for _, to := range x.Route.Rule.Mirrors {
			if drawn(to.GetShare()) && x.Request.Header.Get("Upgrade") == "" {
				m.start(x, to)
			}
		}
		return next.Serve(x)
	})
}

func (m *Mirrors) start(x *Exchange, to *l7.Mirror) {
	select {
	case m.slots <- struct{}{}:
	default:
		m.Log.Warn("request not mirrored: too many copies are under way", "backend", to.GetBackend(), "limit", maxMirrors)
		return
	}
	limit := x.Route.Rule.Timeout
	if limit <= 0 {
		limit = mirrorTime
	}
	ctx, cancel := context.WithTimeout(m.ctx, limit)
	req := x.Request.Clone(ctx)
	req.Host = shadow(req.Host)
	if x.Request.Body != nil && x.Request.Body != http.NoBody {
		t := newTee(x.Request.Body, mirrorBehind)
		x.Request.Body, req.Body = t, t.copy
		context.AfterFunc(ctx, t.copy.drop)
	}
	copied := &Exchange{
		Request: req, Route: x.Route, Host: x.Host, Authority: x.Authority, Record: &access.Record{},
		Destination: &l7.Destination{Backend: to.GetBackend()},
	}
	m.wg.Go(func() {
		defer func() { <-m.slots }()
		defer cancel()
		resp, err := m.Send.Serve(copied)
		if err != nil {
			m.Log.Debug("mirrored request failed", "backend", to.GetBackend(), "error", err)
			return
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			m.Log.Debug("mirrored request failed", "backend", to.GetBackend(), "error", err)
		}
	})
}

// shadow marks the host of a copy, as Envoy does, so that its logs are told apart.
func shadow(host string) string {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return net.JoinHostPort(name+"-shadow", port)
	}
	if strings.HasSuffix(host, "]") {
		return host
	}
	return host + "-shadow"
}

// tee reads a body and keeps what was read for a second reader.
type tee struct {
	io.ReadCloser
	copy *teeCopy
}

// teeCopy is the second reader: it may be behind by a bounded number of bytes.
type teeCopy struct {
	limit int
	wake  chan struct{} // holds a token when something is new

	mu  sync.Mutex // guards below
	buf []byte
	err error // after buf
}

var errBehind = errors.New("the mirrored backend is too slow for its copy")

func newTee(r io.ReadCloser, limit int) *tee {
	return &tee{r, &teeCopy{limit: limit, wake: make(chan struct{}, 1)}}
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.copy.put(p[:n], err)
	return n, err
}

func (t *tee) Close() error {
	t.copy.put(nil, io.ErrUnexpectedEOF)
	return t.ReadCloser.Close()
}

func (c *teeCopy) put(p []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	if len(c.buf)+len(p) > c.limit {
		c.buf, c.err = nil, errBehind
	} else {
		c.buf, c.err = append(c.buf, p...), err
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *teeCopy) drop() { c.put(nil, context.Canceled) }

func (c *teeCopy) Read(p []byte) (int, error) {
	for {
		c.mu.Lock()
		n := copy(p, c.buf)
		c.buf = c.buf[n:]
		err := c.err
		rest := len(c.buf)
		c.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		if err != nil && rest == 0 {
			return 0, err
		}
		<-c.wake
	}
}

func (c *teeCopy) Close() error {
	c.drop()
	return nil
}
