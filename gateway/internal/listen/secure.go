package listen

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
)

// secure serves a connection that begins with TLS.
func (s *Server) secure(ctx context.Context, nc net.Conn, info *Info) {
	var hello []byte
	if p := PortOf(s.Table(), info.Port); p != nil && slices.ContainsFunc(p.Listeners, passthrough) {
		var err error
		nc.SetReadDeadline(time.Now().Add(headTimeout)) //nolint:errcheck // a closed connection fails at the read
		if info.ServerName, hello, err = readHello(ctx, nc); err != nil {
			s.Log.Debug("TLS hello cannot be read", "remote", nc.RemoteAddr(), "error", err)
			return
		}
		nc.SetReadDeadline(time.Time{}) //nolint:errcheck // as above
		l, err := s.listenerOf(info.Port, info.ServerName)
		if err == nil && passthrough(l) {
			s.stream(ctx, nc, nc, hello, l, info)
			return
		}
	}
	var chosen *table.Listener
	t := tls.Server(&rewound{nc, hello}, s.tlsConfig(info.Port, func(l *table.Listener) { chosen = l }))
	limit, cancel := context.WithTimeout(ctx, headTimeout)
	err := t.HandshakeContext(limit)
	cancel()
	if err != nil {
		s.Log.Debug("TLS handshake failed", "remote", nc.RemoteAddr(), "error", err)
		return
	}
	state := t.ConnectionState()
	info.TLS, info.ServerName = &state, state.ServerName
	switch {
	case chosen.GetProtocol() == l7.Protocol_TLS_TERMINATE:
		s.stream(ctx, t, nc, nil, chosen, info)
	case state.NegotiatedProtocol == "h2":
		s.serveH2(ctx, t, nc, info)
	default:
		s.serveH1(ctx, t, nc, bufio.NewReader(t), info)
	}
}

func passthrough(l *table.Listener) bool { return l.GetProtocol() == l7.Protocol_TLS_PASSTHROUGH }

// maxHello bounds what is read of a client before its name is known.
const maxHello = 64 << 10

var errHello = errors.New("the hello is all that was wanted")

// readHello reads the first message of TLS, and gives back all bytes that it took.
func readHello(ctx context.Context, nc net.Conn) (serverName string, taken []byte, err error) {
	r := &recorder{Conn: nc}
	seen := false
	err = tls.Server(r, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			serverName, seen = h.ServerName, true
			return nil, errHello
		},
	}).HandshakeContext(ctx)
	if seen {
		return serverName, r.taken.Bytes(), nil
	}
	return "", nil, err
}

// recorder keeps what is read and writes nothing: the client must not hear of the look.
type recorder struct {
	net.Conn
	taken bytes.Buffer
}

func (r *recorder) Read(p []byte) (int, error) {
	if r.taken.Len() >= maxHello {
		return 0, errors.New("the hello is too long")
	}
	n, err := r.Conn.Read(p[:min(len(p), maxHello-r.taken.Len())])
	r.taken.Write(p[:n])
	return n, err
}

func (r *recorder) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (r *recorder) Close() error              { return nil }

// rewound is a connection of which some bytes are read again.
type rewound struct {
	net.Conn
	first []byte
}

func (c *rewound) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// SetLinger makes the next Close a break.
func (c *rewound) SetLinger(sec int) error {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(sec)
	}
	return nil
}

// CloseWrite ends our direction.
func (c *rewound) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
