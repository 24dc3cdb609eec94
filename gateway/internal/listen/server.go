package listen

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
)

// Server opens the ports of a table and serves HTTP/1.1 and HTTP/2 on them.
type Server struct {
	Table   func() *table.Table
	Handler http.Handler
	// Stream carries a connection that no request is read from, and closes it. first was read of it already.
	Stream func(ctx context.Context, c net.Conn, first []byte, l *table.Listener, i *Info)
	Log    *slog.Logger
	// Grace is how long requests may finish after the context has ended.
	Grace time.Duration
	// Settle is how long connections are still accepted after the context has ended: others learn only then that we
	// go. Each is asked to close after its answer.
	Settle time.Duration
	// Listen opens a socket; nil means TCP.
	Listen func(ctx context.Context, addr netip.AddrPort) (net.Listener, error)
	// Refused is told of each message that was no request.
	Refused func(i *Info, status int, why string)

	certs certificates
	conns sync.WaitGroup
	h2    *http2.Server
	base  *http.Server

	leaving atomic.Bool // answers ask clients to connect elsewhere

	mu       sync.Mutex // guards below
	open     map[net.Conn]func()
	draining bool
}

// Info is what a request's context tells of its connection.
type Info struct {
	Port       netip.AddrPort // as in the table
	Local      net.Addr
	Remote     net.Addr
	TLS        *tls.ConnectionState // nil: plain
	ServerName string
}

type infoKey struct{}

// InfoOf finds the connection of a request.
func InfoOf(ctx context.Context) *Info {
	i, _ := ctx.Value(infoKey{}).(*Info)
	return i
}

// Run keeps the sockets as the table has them, looking again at each signal of changed, until ctx ends. Then it stops
// accepting, lets requests finish for the time of grace, and closes what is left.
func (s *Server) Run(ctx context.Context, changed <-chan struct{}) error {
	s.open = map[net.Conn]func(){}
	s.base = &http.Server{MaxHeaderBytes: maxHead, ReadHeaderTimeout: headTimeout, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)}
	s.h2 = &http2.Server{
		MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10, IdleTimeout: keepAlive,
		MaxUploadBufferPerConnection: 1 << 20, MaxUploadBufferPerStream: 64 << 10,
		ReadIdleTimeout: 60 * time.Second, PingTimeout: 20 * time.Second, WriteByteTimeout: streamIdle,
	}
	if err := http2.ConfigureServer(s.base, s.h2); err != nil {
		return fmt.Errorf("configure HTTP/2: %w", err)
	}
	if s.Listen == nil {
		s.Listen = listenTCP
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	sockets := map[netip.AddrPort]*socket{}
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		if !s.reconcile(ctx, serving, sockets) {
			retry.Reset(time.Second)
		}
		select {
		case <-ctx.Done():
			s.settle()
			for _, k := range sockets {
				k.close()
			}
			s.drain(stop)
			return nil
		case <-changed:
		case <-retry.C:
		}
	}
}

// socket is one listening socket.
type socket struct {
	l        net.Listener
	protocol l7.Protocol
	done     chan struct{}
}

func (k *socket) close() {
	k.l.Close()
	<-k.done
}

// reconcile opens and closes sockets; it reports whether all are open.
func (s *Server) reconcile(ctx, serving context.Context, sockets map[netip.AddrPort]*socket) bool {
	want := map[netip.AddrPort]l7.Protocol{}
	for _, p := range s.Table().Ports {
		want[p.Addr] = p.Protocol
	}
	for addr, k := range sockets {
		if p, ok := want[addr]; !ok || p != k.protocol {
			k.close()
			delete(sockets, addr)
			s.Log.Info("listener closed", "addr", addr)
		}
	}
	all := true
	for addr, protocol := range want {
		if sockets[addr] != nil {
			continue
		}
		l, err := s.Listen(ctx, addr)
		if err != nil {
			s.Log.Error("listener cannot be opened; trying again", "addr", addr, "error", err)
			all = false
			continue
		}
		k := &socket{l: l, protocol: protocol, done: make(chan struct{})}
		sockets[addr] = k
		s.Log.Info("listener opened", "addr", addr, "protocol", protocol.String())
		s.conns.Go(func() {
			defer close(k.done)
			s.accept(serving, k, addr)
		})
	}
	return all
}

func listenTCP(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	at := addr.String()
	if addr.Addr().IsUnspecified() && addr.Addr().Is6() {
		at = fmt.Sprintf(":%d", addr.Port()) // both families, or the one that the machine has
	}
	return lc.Listen(ctx, "tcp", at)
}

func (s *Server) accept(ctx context.Context, k *socket, addr netip.AddrPort) {
	pause := 5 * time.Millisecond
	for {
		nc, err := k.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: wait, so that the loop does not spin.
			s.Log.Warn("accept failed", "addr", addr, "error", err)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.conns.Go(func() { s.connection(ctx, nc, k.protocol, addr) })
	}
}

func (s *Server) connection(ctx context.Context, nc net.Conn, protocol l7.Protocol, addr netip.AddrPort) {
	defer nc.Close()
	if !s.track(nc, func() { nc.SetReadDeadline(time.Now()) }) { //nolint:errcheck // a closed connection fails at the read
		return
	}
	defer s.untrack(nc)
	info := &Info{Port: addr, Local: nc.LocalAddr(), Remote: nc.RemoteAddr()}
	switch protocol {
	case l7.Protocol_HTTPS:
		s.secure(ctx, nc, info)
		return
	case l7.Protocol_TCP:
		if p := PortOf(s.Table(), addr); p != nil && len(p.Listeners) > 0 {
			s.stream(ctx, nc, nc, nil, p.Listeners[0], info)
		}
		return
	}
	br := bufio.NewReader(nc)
	nc.SetReadDeadline(time.Now().Add(firstTimeout)) //nolint:errcheck // a closed connection fails at the read
	if _, err := br.Peek(1); err != nil {
		return
	}
	nc.SetReadDeadline(time.Now().Add(headTimeout)) //nolint:errcheck // as above
	if start, err := br.Peek(4); err == nil && string(start) == "PRI " {
		nc.SetReadDeadline(time.Time{}) //nolint:errcheck // as above
		s.serveH2(ctx, &readAhead{nc, br}, nc, info)
		return
	}
	s.serveH1(ctx, nc, nc, br, info)
}

// stream hands a connection over. It may go on for as long as the drain lets it.
func (s *Server) stream(ctx context.Context, nc, key net.Conn, first []byte, l *table.Listener, info *Info) {
	if s.track(key, func() {}) {
		s.Stream(ctx, nc, first, l, info)
	}
}

// readAhead is a connection of which some bytes were looked at.
type readAhead struct {
	net.Conn
	br *bufio.Reader
}

func (c *readAhead) Read(p []byte) (int, error) { return c.br.Read(p) }

func (s *Server) serveH1(ctx context.Context, nc, key net.Conn, br *bufio.Reader, info *Info) {
	c := &conn{s: s, nc: nc, br: br, bw: bufio.NewWriter(nc), info: info}
	if s.track(key, c.drain) {
		c.serve(ctx)
	}
}

func (s *Server) serveH2(ctx context.Context, nc, key net.Conn, info *Info) {
	// The HTTP/2 server learns of the drain by itself, through the base server's Shutdown.
	if !s.track(key, func() {}) {
		return
	}
	s.h2.ServeConn(withBudget(nc, time.Now), &http2.ServeConnOpts{
		Context: context.WithValue(ctx, infoKey{}, info), BaseConfig: s.base, Handler: s.Handler,
	})
}

// track remembers how to drain a connection; false means that the server drains already.
func (s *Server) track(nc net.Conn, drain func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.open[nc] = drain
	return true
}

func (s *Server) untrack(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, nc)
}

func (s *Server) settle() {
	s.leaving.Store(true)
	t := time.NewTimer(s.Settle)
	defer t.Stop()
	<-t.C
}

// drain asks every connection to end after what it is doing, then ends those that have not.
func (s *Server) drain(stop context.CancelFunc) {
	s.mu.Lock()
	s.draining = true
	for _, f := range s.open {
		f()
	}
	s.mu.Unlock()
	limit, cancel := context.WithTimeout(context.Background(), s.Grace)
	defer cancel()
	s.base.Shutdown(limit) //nolint:errcheck // what is left is closed below
	done := make(chan struct{})
	go func() { s.conns.Wait(); close(done) }()
	select {
	case <-done:
	case <-limit.Done():
		stop()
		s.mu.Lock()
		for nc := range s.open {
			nc.Close()
		}
		s.mu.Unlock()
		<-done
	}
}
