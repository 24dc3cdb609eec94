package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// HTTP bounds what callers can make an HTTP server hold. The zero value suits small pages.
type HTTP struct {
	// Streams tells that answers may stay open for as long as the caller likes, such as a watch: no time is too long for
	// them, nor for what the caller sends.
	Streams bool
	// Conns is how many connections are open at once. Default 64.
	Conns int
}

// Serve answers with h on l until ctx ends, and closes l. What is under way then is cut: nothing here is worth waiting for.
func (b HTTP) Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	if !b.Streams {
		s.ReadTimeout, s.WriteTimeout = 10*time.Second, 2*time.Minute // a profile takes a minute or so to make
	}
	if b.Conns == 0 {
		b.Conns = 64
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(netutil.LimitListener(l, b.Conns)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}
