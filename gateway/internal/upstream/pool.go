// Package upstream chooses an endpoint of a backend and carries a request to it.
package upstream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/identity"
)

// Target is one way to reach one endpoint. Connections are pooled by it: an endpoint that enters the mesh, changes its
// identity or its protocol is another target, and no connection of the old one is used again.
type Target struct {
	Addr     string // host:port of the application
	Tunnel   bool   // through HBONE
	Identity identity.ID
	HTTP2    bool
	settings string // of TLS and of connections: others make another target
}

// way is a target with what its connections are made of.
type way struct {
	target Target
	name   string // of the service, which TLS asks for
	limits *l7.Limits
	tls    *l7.UpstreamTLS
	secret *l7.Secret
}

// settings is a text that differs where connections must not be shared.
func (w way) settings() string {
	l := w.limits
	s := fmt.Sprint(l.GetConnectTimeout().AsDuration(), l.GetIdleTimeout().AsDuration(), l.GetMaxPerConnection(), l.GetKeepalive().String())
	if t := w.tls; t != nil && !t.GetMesh() {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
		s += fmt.Sprintf(" tls %s %x %v %p", w.name, b, err, w.secret)
	}
	return s
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
	connect   func(ctx context.Context) (net.Conn, error)
	transport *http.Transport
	active    atomic.Int64

	mu      sync.Mutex // guards below
	retired bool
}

func newLane(w way, dial Dial) *lane {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!w.target.HTTP2)
	protocols.SetUnencryptedHTTP2(w.target.HTTP2)
	l := &lane{target: w.target}
	secure, broken := originate(w)
	limit := connectTimeout
	if d := w.limits.GetConnectTimeout().AsDuration(); d > 0 {
		limit = d
	}
	l.connect = func(ctx context.Context) (net.Conn, error) {
		if broken != nil {
			return nil, &connectError{broken}
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		c, err := dial(ctx, w.target)
		if err == nil && secure != nil {
			c, err = secure(ctx, c)
		}
		if err != nil {
			return nil, &connectError{err}
		}
		keepalive(c, w.limits.GetKeepalive())
		return c, nil
	}
	idle := idleTimeout
	if d := w.limits.GetIdleTimeout().AsDuration(); d > 0 {
		idle = d
	}
	l.transport = &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return l.connect(ctx) },
		Protocols:              protocols,
		DisableCompression:     true,
		DisableKeepAlives:      w.limits.GetMaxPerConnection() == 1,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idle,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHeader,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 20 * time.Second},
	}
	return l
}

// keepalive asks the kernel to look whether a plain connection's other end is still there.
func keepalive(c net.Conn, k *l7.Keepalive) {
	t, ok := c.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	})
	if k == nil || !ok {
		return
	}
	//nolint:errcheck // a connection that is closed meanwhile fails at its use
	t.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: k.GetTime().AsDuration(), Interval: k.GetInterval().AsDuration(), Count: int(k.GetProbes()),
	})
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
