package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
	"github.com/ambit-mesh/ambit/identity"
)

// Server answers tunnels.
type Server struct {
	// TLS is made by mtls.Server.
	TLS *tls.Config
	// Handler is called for each tunnel, in a goroutine of its own. Its context ends when the tunnel
	// breaks, with the reason as its cause. The
	// tunnel ends when it returns.
	Handler func(context.Context, Tunnel)
	// Grace is how long tunnels may finish after the end of Serve's context. Default 20s.
	Grace time.Duration
	// Unproven bounds the connections whose peers have not proved who they are. Default: one of its own.
	Unproven *Unproven
	// Refused is told of each connection that did not come to stand. Default: a line in Log.
	Refused func(conn net.Conn, err error)
	// Log gets lines about what is amiss. Default: none.
	Log *slog.Logger

	pool buffers
	mu   sync.Mutex            // guards below
	open map[*carrier]struct{} // until they ended
}

// Serve accepts connections from l until ctx ends, then drains. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Unproven == nil {
		s.Unproven = &Unproven{}
	}
	if s.Refused == nil {
		s.Refused = func(conn net.Conn, err error) {
			s.Log.Info("connection refused", "from", conn.RemoteAddr(), "error", err)
		}
	}
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.Log.Warn("close listener", "addr", l.Addr(), "error", err)
		}
		for _, c := range s.carriers() {
			c.drain()
		}
	})
	err := s.accept(ctx, work, l, &wg)
	stop()
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	grace := s.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		cut(errCut)
		for _, c := range s.carriers() {
			c.cut(errCut)
		}
		<-done
	}
	return err
}

func (s *Server) accept(ctx, work context.Context, l net.Listener, wg *sync.WaitGroup) error {
	wait := 5 * time.Millisecond
	for {
		conn, err := l.Accept()
		if err == nil {
			wait = 5 * time.Millisecond
			proven, err := s.Unproven.enter(work, conn)
			if err != nil {
				_ = conn.Close() // it never stood
				s.Refused(conn, err)
				continue
			}
			wg.Go(func() { s.serveConn(ctx, work, conn, proven) })
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept tunnels: %w", err)
		}
		s.Log.Warn("accept a connection", "addr", l.Addr(), "error", err) // out of files, or the like: it passes
		pause := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
			wait = min(2*wait, time.Second)
		}
	}
}

func (s *Server) carriers() []*carrier {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*carrier
	for c := range s.open {
		all = append(all, c)
	}
	return all
}

func (s *Server) serveConn(ctx, work context.Context, conn net.Conn, proven func()) {
	c, err := s.handshake(work, conn) // one that has begun goes on: who drains has accepted it
	proven()
	if err != nil {
		_ = conn.Close() // it never stood
		s.Refused(conn, err)
		return
	}
	c.server, c.base = s, work
	c.changed = func(*carrier) {}
	s.mu.Lock()
	if s.open == nil {
		s.open = map[*carrier]struct{}{}
	}
	s.open[c] = struct{}{}
	s.mu.Unlock()
	if ctx.Err() != nil {
		c.drain()
	}
	c.run()
	c.handlers.Wait()
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
}

func (s *Server) handshake(ctx context.Context, conn net.Conn) (*carrier, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	end, err := shake(ctx, conn, &s.pool, s.TLS, false)
	if err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return newCarrier(end, &s.pool, engineConfig(true, serverStreams)), nil
}

// tunnel is a request on its way to an answer.
type tunnel struct {
	s         *Stream
	authority string
}

// requestLocked starts the handler of a new stream, or answers for it.
func (c *carrier) requestLocked(e *h2.Event) {
	s := c.addLocked(e.Stream)
	s.header = toHeader(e.Head.Fields)
	s.ended = e.End
	t := &tunnel{s: s, authority: e.Head.Authority}
	switch status, why := judge(e.Head); {
	case status != 0:
		t.refuseLocked(status, why)
	case c.active >= 2*serverStreams: // handlers of streams that were reset are still at work
		s.abortLocked(h2.RefusedStream, "too many requests at work")
	default:
		c.active++
		ctx, cancel := context.WithCancelCause(c.base)
		s.cancel = cancel
		c.handlers.Go(func() {
			defer cancel(nil)
			c.server.Handler(ctx, t)
			t.done()
		})
	}
}

// judge says how to refuse what is not a request for a tunnel; 0 if it is one.
func judge(h *h2.Head) (status int, why string) {
	switch {
	case h.TooLarge:
		return http.StatusRequestHeaderFieldsTooLarge, "headers over 64 KiB"
	case h.Method != http.MethodConnect:
		return http.StatusBadRequest, "method is not CONNECT"
	case h.HasProtocol:
		return http.StatusBadRequest, "extended CONNECT, which was not offered"
	case h.HasScheme || h.HasPath:
		return http.StatusBadRequest, "CONNECT with a scheme or a path"
	}
	if err := CheckAuthority(h.Authority); err != nil {
		return http.StatusBadRequest, err.Error()
	}
	return 0, ""
}

func (t *tunnel) Peer() identity.ID    { return t.s.c.peer }
func (t *tunnel) Authority() string    { return t.authority }
func (t *tunnel) Header() http.Header  { return t.s.header }
func (t *tunnel) LocalAddr() net.Addr  { return t.s.LocalAddr() }
func (t *tunnel) RemoteAddr() net.Addr { return t.s.RemoteAddr() }

func (t *tunnel) Accept(h http.Header) (net.Conn, error) {
	fields, err := toFields(h)
	if err != nil {
		return nil, fmt.Errorf("accept tunnel to %s: %w", t.authority, err)
	}
	c := t.s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.s.status != 0 {
		return nil, fmt.Errorf("accept tunnel to %s: already answered", t.authority)
	}
	if t.s.err != nil {
		return nil, fmt.Errorf("accept tunnel to %s: %w", t.authority, t.s.err)
	}
	if err := c.eng.Respond(t.s.id, http.StatusOK, fields, false); err != nil {
		return nil, fmt.Errorf("accept tunnel to %s: %w", t.authority, err)
	}
	t.s.status = http.StatusOK
	c.flushLocked()
	return t.s, nil
}

func (t *tunnel) Refuse(status int, why string) {
	t.s.c.mu.Lock()
	defer t.s.c.mu.Unlock()
	t.refuseLocked(status, why)
}

func (t *tunnel) refuseLocked(status int, why string) {
	s, c := t.s, t.s.c
	if s.status != 0 || s.err != nil {
		return
	}
	s.status = status
	c.server.Log.Debug("tunnel refused", "peer", c.peer, "to", t.authority, "status", status, "reason", why)
	if err := c.eng.Respond(s.id, status, nil, true); err != nil {
		s.abortLocked(h2.InternalError, err.Error())
		return
	}
	s.sentEnd = true
	c.eng.Reset(s.id, h2.NoError) // nothing to do if the client has ended too
	c.kickLocked()
	s.ended = false // what came is not to be read
	s.failLocked(&ResetError{Code: h2.NoError.String(), Why: "refused: " + why})
}

// done ends the tunnel behind its handler.
func (t *tunnel) done() {
	t.Refuse(http.StatusInternalServerError, "not answered")
	c := t.s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	if s := t.s; !s.closed && s.err == nil && !(s.ended && s.sentEnd) {
		s.abortLocked(h2.Cancel, "handler returned")
	}
}
