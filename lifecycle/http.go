package lifecycle

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// HTTP bounds what callers can make an HTTP server hold. The zero value suits small pages.
type HTTP struct {
	// Streams tells that answers may stay open for as long as the caller likes, such as a watch: no time is too long for
	// them, nor for what the caller sends.
	Streams bool
	// Conns is how many connections are open at once; more wait. Default 256.
	Conns int
	// PerHost is how many of them one address may have, so that it cannot take them all; more are closed at once. Default 32,
	// and no bound for streams.
	PerHost int
	// TLS, if not nil, is what connections begin with. Until a request is taken up, what its sender has us hold is no more than
	// the 64 KiB of a window.
	TLS *tls.Config
	// Linger is how much longer than its context the server answers, for whoever is still led here by what knows only a moment
	// later that this process ends. Then those who stay connected are asked to go elsewhere. Default 0: all is cut at once.
	Linger time.Duration
}

// farewell is how long what is under way when the lingering is over may take.
const farewell = 2 * time.Second

// Serve answers with h on l until ctx ends, and closes l. What is under way then is cut, unless the server lingers.
func (b HTTP) Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	if !b.Streams {
		s.ReadTimeout, s.WriteTimeout = 10*time.Second, 2*time.Minute // a profile takes a minute or so to make
	}
	if b.Conns == 0 {
		b.Conns = 256
	}
	if b.PerHost == 0 {
		if b.PerHost = 32; b.Streams {
			b.PerHost = b.Conns
		}
	}
	if b.Linger > 0 {
		s.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }
	}
	gone := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(gone)
		b.end(s)
	})
	bounded := &fair{Listener: netutil.LimitListener(l, b.Conns), most: b.PerHost, open: map[string]int{}}
	serve := s.Serve
	if b.TLS != nil {
		s.TLSConfig, s.ErrorLog = b.TLS, log.New(io.Discard, "", 0) // who does not get through a handshake is no news
		s.HTTP2 = &http.HTTP2Config{MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10}
		serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	if err := serve(bounded); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	<-gone // nobody else ends it
	return nil
}

// end is what the end of the context brings about.
func (b HTTP) end(s *http.Server) {
	if b.Linger > 0 {
		time.Sleep(b.Linger)
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		_ = s.Shutdown(ctx) // who takes longer is cut
	}
	_ = s.Close()
}

// fair is a listener that lets one address have only so many connections.
type fair struct {
	net.Listener
	most int

	mu   sync.Mutex     // guards below
	open map[string]int // by host
}

// Accept implements net.Listener.
func (f *fair) Accept() (net.Conn, error) {
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(c.RemoteAddr().String())
		if err != nil {
			return c, nil // of this machine, by a socket in its file system
		}
		if f.enter(host) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { f.left(host) })}, nil
		}
		_ = c.Close() // it has nothing to lose
	}
}

func (f *fair) enter(host string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[host] >= f.most {
		return false
	}
	f.open[host]++
	return true
}

func (f *fair) left(host string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[host]--; f.open[host] == 0 {
		delete(f.open, host)
	}
}

// counted is a connection that tells when it ends.
type counted struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
