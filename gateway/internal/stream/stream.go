// Package stream carries a whole connection from a listener to a backend, without looking into it.
package stream

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/gateway/internal/access"
	"github.com/ambit-mesh/ambit/gateway/internal/listen"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
	"github.com/ambit-mesh/ambit/gateway/internal/upstream"
	"github.com/ambit-mesh/ambit/hbone"
)

// Relay carries connections by the rules of their listeners.
type Relay struct {
	Table     func() *table.Table
	Upstreams *upstream.Upstreams
	Opened    func(*access.Record) // called when both ends stand
	Report    func(*access.Record) // called once at the end of each connection
	Log       *slog.Logger
}

// Serve carries a connection to its end. first is what was read of it already.
func (p *Relay) Serve(ctx context.Context, c net.Conn, first []byte, l *table.Listener, info *listen.Info) {
	rec := &access.Record{
		Start: time.Now(), Stream: true, Method: "-", Path: "-", Protocol: "-", Details: "-", ServerName: info.ServerName,
		DownstreamLocal: info.Local.String(), DownstreamRemote: info.Remote.String(),
	}
	defer func() {
		rec.Duration = time.Since(rec.Start)
		p.Report(rec)
	}()
	var to netip.Addr
	if ap, err := netip.ParseAddrPort(info.Local.String()); err == nil {
		to = ap.Addr()
	}
	s := l.Stream(strings.ToLower(strings.TrimSuffix(info.ServerName, ".")), to)
	if s == nil {
		rec.Flag(access.NoRoute)
		c.Close()
		return
	}
	rec.RouteName = s.Source
	d := s.Pick(rand.Uint64())
	if d == nil {
		rec.Flag(access.NoCluster)
		c.Close()
		return
	}
	back, leave, err := p.Upstreams.Connect(ctx, upstream.Call{Backend: d.GetBackend(), Matched: p.Table().Backends[d.GetBackend()], From: info.Remote, Record: rec})
	if err != nil {
		rec.TransportFailure = err.Error()
		abort(c) // an orderly end would say that the backend had nothing to tell
		return
	}
	defer leave()
	p.Opened(rec)
	if t, ok := c.(*tls.Conn); ok {
		c = &secured{Conn: t}
	}
	if len(first) > 0 {
		if _, err := back.Write(first); err != nil {
			rec.Flag(access.UpstreamTermination)
			rec.TransportFailure = err.Error()
			abort(c)
			back.Close()
			return
		}
	}
	if limit := rec.Backend.GetLimits().GetMaxConnectionDuration().AsDuration(); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	done := hbone.Join(ctx, c, back)
	rec.BytesReceived, rec.BytesSent = done.Sent+int64(len(first)), done.Received
	if done.Err != nil {
		rec.Termination = done.Err.Error()
		// Where the kernel carries the bytes, its error does not tell which end broke: then there is no flag.
		if ctx.Err() == nil && strings.HasPrefix(rec.Termination, "tunnel to application: read tcp") {
			rec.Flag(access.UpstreamTermination)
		}
	}
}

// abort ends a connection so that its peer sees a break.
func abort(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0) //nolint:errcheck // fails only on a socket that is gone
	}
	c.Close()
}

// secured is a connection in TLS that can be broken: without the farewell that would make it look complete.
type secured struct {
	*tls.Conn
	broken atomic.Bool
}

// SetLinger marks the connection as broken; the next Close resets it.
func (s *secured) SetLinger(int) error {
	s.broken.Store(true)
	return nil
}

// Close ends the connection, orderly unless it is broken.
func (s *secured) Close() error {
	if s.broken.Load() {
		abort(s.Conn)
		return nil
	}
	return s.Conn.Close()
}
