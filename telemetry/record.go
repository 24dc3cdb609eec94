package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/identity"
)

// Direction is which side of a connection reports it.
type Direction uint8

// The directions. Outbound is the source's side.
const (
	Outbound Direction = iota
	Inbound
)

func (d Direction) String() string {
	if d == Inbound {
		return "inbound"
	}
	return "outbound"
}

// Party is one end of a connection, as far as it is known.
type Party struct {
	Addr                             netip.AddrPort
	Name, Namespace                  string // of the workload, such as a pod's
	Workload                         string // what it is an instance of, such as a deployment
	CanonicalName, CanonicalRevision string
	Cluster, Region, Zone            string
	Identity                         identity.ID // proved by mutual TLS; zero otherwise
	Account                          identity.ID // that the control plane gives the workload
	Foreign                          bool        // known from what it says of itself alone
}

// Service is the service that a connection was meant for.
type Service struct{ Host, Name, Namespace string }

// Record is one connection.
type Record struct {
	ID        string // 32 hexadecimal digits: the trace it belongs to
	Direction Direction
	Src, Dst  Party
	// Hop is where the tunnel of the connection ends, port 15008; invalid without a tunnel.
	Hop     netip.AddrPort
	Service Service
	// Mutual says that the connection travels in mutual TLS.
	Mutual bool
	// Type says how the connection was routed: Direct, ToServerWaypoint, Passthrough.
	Type string
	// Early says that it was refused before anything was opened.
	Early bool

	Sent, Received uint64 // as seen by the client: Sent goes to the server
	Duration       time.Duration
	Flag           Flag
	Err            string
	// Policy and Why name the policies that refused, and what of them.
	Policy, Why string
}

// Access writes access records. Its format decides how much is told when a connection begins. Equal lines about
// connections that went wrong are held back after a few in a second, and counted.
type Access struct {
	log         *slog.Logger
	outbound    *slog.Logger
	inbound     *slog.Logger
	walkthrough bool
	failures    *limiter
	beginnings  *limiter
}

// NewAccess makes a writer of access records in the format of the given handler.
func NewAccess(h *Handler) *Access {
	log := slog.New(h)
	a := &Access{
		log:         log.With(Scope("access")),
		outbound:    log.With(Scope("proxy::outbound")),
		inbound:     log.With(Scope("proxy::inbound")),
		walkthrough: h.format == Walkthrough,
	}
	a.failures = &limiter{write: a.write, lost: func(n uint64) {
		a.log.Warn("connections failed that are not told one by one", "repeated", n)
	}}
	a.beginnings = &limiter{lost: func(n uint64) {
		a.log.Warn("connections begun that are not told one by one", "repeated", n)
	}}
	return a
}

// Begin tells that a connection was opened.
func (a *Access) Begin(r *Record) {
	if a.walkthrough {
		if !a.beginnings.room() {
			return
		}
		log, span := a.span(r)
		log.LogAttrs(context.Background(), slog.LevelInfo, a.beginning(r), span)
		return
	}
	if a.log.Enabled(context.Background(), slog.LevelDebug) {
		a.log.LogAttrs(context.Background(), slog.LevelDebug, "connection opened", r.attrs(true)...)
	}
}

func (a *Access) beginning(r *Record) string {
	switch {
	case r.Direction == Inbound && r.Mutual:
		return fmt.Sprintf("got CONNECT request to %s", r.Dst.Addr)
	case r.Direction == Inbound:
		return "accepted connection"
	case r.Hop.IsValid():
		return fmt.Sprintf("proxy to %s using HBONE via %s type %s", r.Dst.Addr, r.Hop, r.Type)
	}
	return fmt.Sprintf("Proxying to %s using TCP via %s type %s", r.Dst.Addr, r.Dst.Addr, r.Type)
}

func (a *Access) span(r *Record) (*slog.Logger, slog.Attr) {
	if r.Direction == Inbound {
		attrs := []slog.Attr{slog.Any("id", bare(r.ID)), slog.Any("peer_ip", r.Src.Addr.Addr())}
		if !r.Src.Identity.IsZero() {
			attrs = append(attrs, slog.Any("peer_id", bare(r.Src.Identity.String())))
		}
		return a.inbound, Span("inbound", attrs...)
	}
	return a.outbound, Span("outbound", slog.Any("id", bare(r.ID)))
}

// End writes the one line of a connection that is over.
func (a *Access) End(r *Record) {
	if r.Err != "" {
		a.failures.admit(r)
		return
	}
	a.write(r, 0)
}

// write writes a record that stands for so many more that were held back.
func (a *Access) write(r *Record, repeated uint64) {
	if a.walkthrough {
		a.endWalkthrough(r, repeated)
		return
	}
	level, message := slog.LevelInfo, "connection complete"
	switch {
	case r.Early:
		level, message = slog.LevelWarn, "connection failed"
	case r.Err != "":
		level = slog.LevelError
	}
	if a.log.Enabled(context.Background(), level) {
		a.log.LogAttrs(context.Background(), level, message, withRepeated(r.attrs(false), repeated)...)
	}
}

func withRepeated(attrs []slog.Attr, n uint64) []slog.Attr {
	if n == 0 {
		return attrs
	}
	return append(attrs, slog.Uint64("repeated", n))
}

func (a *Access) endWalkthrough(r *Record, repeated uint64) {
	log, span := a.span(r)
	attrs := []slog.Attr{span, slog.Duration("dur", r.Duration)}
	level, message := slog.LevelInfo, "complete"
	switch {
	case r.Flag == Denied && r.Direction == Inbound:
		level, message = slog.LevelInfo, "RBAC rejected"
		attrs = append(attrs, slog.String("err", r.Err), slog.String("policy", r.Policy))
	case r.Err != "":
		level, message = slog.LevelWarn, "failed"
		attrs = append(attrs, slog.String("err", r.Err))
	case r.Direction == Inbound && !r.Mutual:
		message = "connection complete"
	}
	log.LogAttrs(context.Background(), level, message, withRepeated(attrs, repeated)...)
}

// attrs are the keys of an access line, in Istio's order; what is not known is left out.
func (r *Record) attrs(open bool) []slog.Attr {
	out := make([]slog.Attr, 0, 20)
	text := func(key, value string) {
		if value != "" {
			out = append(out, slog.String(key, value))
		}
	}
	addr := func(key string, a netip.AddrPort) {
		if a.IsValid() {
			out = append(out, slog.Any(key, a))
		}
	}
	addr("src.addr", r.Src.Addr)
	if !r.Early {
		text("src.workload", cmp.Or(r.Src.Name, r.Src.CanonicalName))
		text("src.namespace", r.Src.Namespace)
		text("src.identity", r.Src.Identity.String())
		text("src.cluster", r.Src.Cluster)
	}
	if r.Hop.IsValid() && !r.Early {
		addr("dst.addr", r.Hop)
		addr("dst.hbone_addr", r.Dst.Addr)
	} else {
		addr("dst.addr", r.Dst.Addr)
	}
	if !r.Early {
		text("dst.service", r.Service.Host)
		text("dst.workload", cmp.Or(r.Dst.Name, r.Dst.CanonicalName))
		text("dst.namespace", r.Dst.Namespace)
		text("dst.identity", r.Dst.Identity.String())
		text("dst.cluster", r.Dst.Cluster)
	}
	text("direction", r.Direction.String())
	if open {
		return out
	}
	if !r.Early {
		sent, received := r.Sent, r.Received
		if r.Direction == Inbound {
			sent, received = received, sent // as the server's side sees it
		}
		out = append(out, slog.Uint64("bytes_sent", sent), slog.Uint64("bytes_recv", received))
		text("duration", fmt.Sprintf("%dms", r.Duration.Milliseconds()))
	}
	text("error", r.Err)
	text("policy", r.Policy)
	if r.Err != "" {
		text("why", r.Why)
	}
	return out
}
