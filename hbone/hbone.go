// Package hbone carries TCP connections through HTTP/2 CONNECT tunnels in mutual TLS.
package hbone

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
	"github.com/ambit-mesh/ambit/identity"
)

// Hop is the next machine: where it is, who we are to it, and who it must prove to be.
type Hop struct {
	Addr   netip.AddrPort
	From   netip.Addr // the address we come from; connections are not shared between addresses
	Own    identity.ID
	Expect []identity.ID // one of these; none admits nobody
}

// Tunnel is a CONNECT request that waits for an answer: Accept or Refuse.
type Tunnel interface {
	// Peer is who opened the tunnel, as proved by its certificate.
	Peer() identity.ID
	// Authority is where the tunnel shall lead: ip:port, [ipv6]:port or hostname:port, and nothing else.
	Authority() string
	// Header is what came with the request.
	Header() http.Header
	// LocalAddr and RemoteAddr are of the connection that carries the tunnel.
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	// Accept answers 200. What the client has sent already is then read from the connection.
	Accept(http.Header) (net.Conn, error)
	// Refuse answers with a status. What the client has sent already is thrown away.
	Refuse(status int, why string)
}

// Figures of the protocol. Windows: FEATURES 1.4; a stream begins with less and grows while its application keeps up,
// so that a hundred streams that nobody reads cannot fill the connection's window.
const (
	streamWindow    = 64 << 10
	maxStreamWindow = 4 << 20
	connWindow      = 16 << 20
	maxFrame        = 1 << 20
	serverHeaders   = 64 << 10
	clientHeaders   = 16 << 10
	serverStreams   = 200
	clientStreams   = 100

	handshakeTimeout = 10 * time.Second // of TLS; as long again for the first SETTINGS
	answerTimeout    = 20 * time.Second // from Open to the hop's answer
	pingEvery        = 10 * time.Second
	pingTimeout      = 20 * time.Second
	idleTimeout      = 5 * time.Minute
	lingerTimeout    = time.Minute // how long a closed stream waits for the peer's end
	defaultGrace     = 20 * time.Second
	goodbyeTimeout   = 5 * time.Second // until the peer of an ended connection has ended too
	farewellTimeout  = time.Second     // for a peer that broke a rule, to hear which
)

func engineConfig(server bool, streams int) h2.Config {
	c := h2.Config{
		Server: server, StreamWindow: streamWindow, MaxStreamWindow: maxStreamWindow, ConnWindow: connWindow,
		MaxFrame: maxFrame, MaxHeaderList: clientHeaders, MaxStreams: streams,
	}
	if server {
		c.MaxHeaderList = serverHeaders
	}
	return c
}

// Serve answers the tunnels that come in through l, each in a goroutine of its own, until ctx ends. It then asks its
// peers to open no more, lets those that are open finish for 20 seconds, and cuts the rest. A tunnel ends when f returns.
func Serve(ctx context.Context, l net.Listener, conf *tls.Config, f func(context.Context, Tunnel)) error {
	s := Server{TLS: conf, Handler: f}
	return s.Serve(ctx, l)
}
