// Package gateway is the L7 proxy of the mesh: the ingress gateway, and the base of the waypoint.
package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/gateway/internal/access"
	"github.com/ambit-mesh/ambit/gateway/internal/filter"
	"github.com/ambit-mesh/ambit/gateway/internal/listen"
	"github.com/ambit-mesh/ambit/gateway/internal/measure"
	"github.com/ambit-mesh/ambit/gateway/internal/relay"
	"github.com/ambit-mesh/ambit/gateway/internal/stream"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
	"github.com/ambit-mesh/ambit/gateway/internal/upstream"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/mesh"
)

// Config is what a gateway needs from outside.
type Config struct {
	// Workload is the gateway itself, for the labels of metrics.
	Workload Workload
	// Identity is what the gateway proves to backends in the mesh.
	Identity identity.ID
	// Tunnel opens a stream to authority through HBONE at the endpoint's pod, which must prove one of expect.
	Tunnel func(ctx context.Context, hop netip.AddrPort, expect []identity.ID, authority string) (net.Conn, error)
	// Dial opens plain connections to backends. Default: TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Listen opens sockets. Default: TCP.
	Listen func(ctx context.Context, addr netip.AddrPort) (net.Listener, error)
	// AccessLog receives one line per request; nil means none.
	AccessLog io.Writer
	// AccessLogJSON writes lines as JSON objects instead of text.
	AccessLogJSON bool
	// TrustedHops is how many proxies before the gateway are trusted to have written x-forwarded-for. Default 0.
	TrustedHops int
	// Grace is how long requests may finish after the end was asked for. Default 30s.
	Grace time.Duration
	// Settle is how long new connections are still accepted before that, while others learn that we go. Default 0.
	Settle time.Duration
	// Metrics takes the gateway's families; nil means none.
	Metrics prometheus.Registerer
	// Ready learns when the gateway can serve; nil means nobody asks.
	Ready *lifecycle.Readiness
	Log   *slog.Logger
}

// Workload names the gateway in metrics.
type Workload = measure.Workload

// Gateway serves what l7 resources describe.
type Gateway struct {
	c         Config
	upstreams *upstream.Upstreams
	current   atomic.Pointer[table.Table]
	changed   chan struct{}
	measure   *measure.Families

	noise *access.Limit // of lines about what was no request

	logMu sync.Mutex // guards writes to AccessLog

	mu      sync.Mutex // guards below
	builder *table.Builder
	synced  map[string]func() // by resource type: what to call at the first response
}

// New makes a gateway that serves nothing yet.
func New(c Config) (*Gateway, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Grace == 0 {
		c.Grace = 30 * time.Second
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Ready == nil {
		c.Ready = &lifecycle.Readiness{}
	}
	g := &Gateway{c: c, builder: table.NewBuilder(), changed: make(chan struct{}, 1), synced: map[string]func(){}}
	g.current.Store(&table.Table{})
	g.noise = &access.Limit{Burst: 1000, Rate: 100, Now: time.Now}
	g.upstreams = upstream.New(g.dial, c.Log)
	for _, t := range []string{mesh.TypeSecret, mesh.TypeBackend, mesh.TypeRoute, mesh.TypeListener} {
		g.synced[t] = c.Ready.Add("xds " + t)
	}
	g.measure = measure.New(c.Workload)
	if c.Metrics != nil {
		if err := g.measure.Register(c.Metrics); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return g, nil
}

// Run serves until ctx ends, and then as long as requests need, at most for the time of grace.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.upstreams.Close()
	mirrors := filter.NewMirrors(g.upstreams, g.c.Log)
	defer mirrors.Close()
	r := &relay.Relay{
		Table: g.current.Load, Chain: filter.Chain(g.upstreams, mirrors.Filter), Edge: relay.Edge{TrustedHops: g.c.TrustedHops},
		Report: g.report, Log: g.c.Log,
	}
	streams := &stream.Relay{
		Table: g.current.Load, Upstreams: g.upstreams, Opened: g.measure.Opened, Report: g.report, Log: g.c.Log,
	}
	s := &listen.Server{
		Stream: streams.Serve,
		Table:  g.current.Load, Handler: r, Log: g.c.Log, Grace: g.c.Grace, Settle: g.c.Settle, Listen: g.c.Listen, Refused: g.refused,
	}
	return s.Run(ctx, g.changed)
}

// dial reaches a target as the control plane said: an endpoint in the mesh through HBONE, and never in the clear.
func (g *Gateway) dial(ctx context.Context, t upstream.Target) (net.Conn, error) {
	if !t.Tunnel {
		return g.c.Dial(ctx, "tcp", t.Addr)
	}
	if g.c.Tunnel == nil {
		return nil, fmt.Errorf("reach %s through HBONE: this gateway has no tunnels", t.Addr)
	}
	app, err := netip.ParseAddrPort(t.Addr)
	if err != nil {
		return nil, fmt.Errorf("reach %s through HBONE: %w", t.Addr, err)
	}
	return g.c.Tunnel(ctx, netip.AddrPortFrom(app.Addr(), mesh.PortHBONE), []identity.ID{t.Identity}, t.Addr)
}

func (g *Gateway) report(r *access.Record) {
	g.measure.Observe(r)
	if g.c.AccessLog == nil {
		return
	}
	line := r.Text()
	if g.c.AccessLogJSON {
		var err error
		if line, err = r.JSON(); err != nil {
			g.c.Log.Error("access line cannot be written", "error", err)
			return
		}
	}
	g.logMu.Lock()
	defer g.logMu.Unlock()
	if _, err := io.WriteString(g.c.AccessLog, line+"\n"); err != nil {
		g.c.Log.Error("access line cannot be written", "error", err)
	}
}

// refused reports a message that was no request. All are counted; lines are bounded, because they cost a client nothing.
func (g *Gateway) refused(i *listen.Info, status int, why string) {
	rec := &access.Record{
		Start: time.Now(), Method: "-", Path: "-", Protocol: "HTTP/1.1", Status: status, Flags: []string{access.DownstreamProtocol},
		Details: "http1.codec_error", Termination: why, DownstreamLocal: i.Local.String(), DownstreamRemote: i.Remote.String(),
		ServerName: i.ServerName,
	}
	ok, held := g.noise.Admit()
	if !ok {
		g.measure.Observe(rec)
		return
	}
	if held > 0 {
		g.c.Log.Warn("access lines about what was no request were held back", "lines", held)
	}
	g.report(rec)
}
