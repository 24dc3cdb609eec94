// Package upstream chooses an endpoint of a backend and carries a request to it.
package upstream

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/identity"
)

// Target is one way to reach one endpoint. Connections are pooled by it: an endpoint that enters the mesh, changes its
// identity or its protocol is another target, and no connection of the old one is used again.
type Target struct {
	Addr     string // host:port of the application
	Tunnel   bool   // through HBONE
	Identity identity.ID
	HTTP2    bool
}

// Dial opens a byte stream to the application behind a target.
type Dial func(ctx context.Context, t Target) (net.Conn, error)

// connectError is a failure before any byte of a request was sent.
type connectError struct{ cause error }

func (e *connectError) Error() string { return "connect: " + e.cause.Error() }
func (e *connectError) Unwrap() error { return e.cause }

// Limits of one lane. The idle time is under the hour after which Envoy drops idle connections, so that we seldom use
// one that its server is about to close.
const (
	connectTimeout = 10 * time.Second // Istio's default
	idleTimeout    = 90 * time.Second
	maxIdle        = 128
	maxHeader      = 64 << 10
)

// lane is the pooled connections of one target.
type lane struct {
	target    Target
	transport *http.Transport
	active    atomic.Int64

	mu      sync.Mutex // guards below
	retired bool
}

func newLane(t Target, dial Dial) *lane {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!t.HTTP2)
	protocols.SetUnencryptedHTTP2(t.HTTP2)
	return &lane{target: t, transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			c, err := dial(ctx, t)
			if err != nil {
				return nil, &connectError{err}
			}
			return c, nil
		},
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHeader,
	}}
}

// enter counts a request in; the function it returns counts it out, once.
func (l *lane) enter() (leave func()) {
	l.active.Add(1)
	return sync.OnceFunc(func() {
		l.active.Add(-1)
		l.mu.Lock()
		retired := l.retired
		l.mu.Unlock()
		if retired {
			l.transport.CloseIdleConnections()
		}
	})
}

// retire lets requests finish and closes connections as they become idle.
func (l *lane) retire() {
	l.mu.Lock()
	l.retired = true
	l.mu.Unlock()
	l.transport.CloseIdleConnections()
}
