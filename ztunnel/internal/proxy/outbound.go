package proxy

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/netip"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity/svid"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// serveOutbound carries a connection that the pod's application opened and the kernel redirected here.
func (p *Proxy) serveOutbound(ctx context.Context, c *net.TCPConn) {
	r := p.newReport(telemetry.Outbound, hbone.NewTraceparent())
	r.Src.Addr = addrOf(c.RemoteAddr())
	to, err := sock.OriginalDst(c)
	if err != nil {
		p.reset(c)
		r.end(0, 0, errConnect(err))
		return
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	r.Dst.Addr = to
	if to == addrOf(c.LocalAddr()) || p.ownPort(to) {
		// The application dialled the proxy itself, which would dial itself in turn.
		p.reset(c)
		r.end(0, 0, errRecursive)
		return
	}
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	open := &connection{Direction: telemetry.Outbound, src: r.Src.Addr, dialled: to, protocol: "TCP", cut: cut}
	defer p.open.add(open)()

	self, route, err := p.route(ctx, r, open, to)
	if n := p.neighbourOf(route); err == nil && n != nil {
		p.serveNeighbour(ctx, c, r, route, n)
		return
	}
	var server net.Conn
	if err == nil {
		server, err = p.connect(ctx, r, self, route)
	}
	if err != nil {
		p.reset(c)
		r.end(0, 0, err)
		return
	}
	r.traffic.Opened = r.opened
	res := r.traffic.Join(ctx, c, server)
	if res.Err != nil && r.closed == nil { // the hop's answer, for which Join waits
		res.Err = outboundError(res.Err)
	}
	r.end(res.Sent, res.Received, res.Err)
}

// route decides where a connection goes.
func (p *Proxy) route(ctx context.Context, r *report, open *connection, to netip.AddrPort) (*state.Workload, state.Route, error) {
	self, err := p.self(ctx, r.Src.Addr.Addr())
	if err != nil {
		return nil, state.Route{}, err
	}
	route := p.Route(ctx, p.pod.NS, self, to)
	r.Src = party(self, r.Src.Addr, r.Src.Identity)
	r.Dst = party(cmp.Or(route.Via, route.Workload), route.To, r.Dst.Identity)
	r.Service, r.Type = serviceOf(route.Service), route.Type
	switch route.Kind {
	case state.HBONE:
		r.Hop, r.Mutual, r.Src.Identity = route.Hop.Addr, true, p.id
		if len(route.Hop.Expect) > 0 && route.Type == state.Direct {
			r.Dst.Identity = route.Hop.Expect[0]
		}
	case state.Passthrough, state.Plaintext:
	default:
		return self, route, &failure{flag: telemetry.ConnectFailed, text: route.Why()}
	}
	r.known()
	actual := route.To
	if route.Kind == state.HBONE {
		actual = route.Hop.Addr
	}
	p.open.set(open, actual, route.Kind == state.HBONE)
	return self, route, nil
}

// connect opens the way to where a connection goes.
func (p *Proxy) connect(ctx context.Context, r *report, self *state.Workload, route state.Route) (net.Conn, error) {
	if route.Kind == state.HBONE {
		return p.tunnel(ctx, r, self, route)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := sock.Dial(ctx, p.pod.NS, netip.AddrPortFrom(r.Src.Addr.Addr(), 0), route.To, sock.Options{Mark: mesh.Mark})
	if err != nil {
		return nil, errConnect(err)
	}
	return c, nil
}

func (p *Proxy) tunnel(ctx context.Context, r *report, self *state.Workload, route state.Route) (net.Conn, error) {
	if _, err := p.certificate(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	forwarded := hbone.Forwarded{For: r.Src.Addr, Host: r.Service.Host}
	h := http.Header{}
	h.Set("Forwarded", forwarded.String())
	h.Set("Baggage", p.baggage(self))
	h.Set("Traceparent", r.span.String())
	hop := route.Hop
	hop.From = r.Src.Addr.Addr()
	s, err := p.dialer.Open(ctx, hop, route.To.String(), h)
	if err != nil {
		return nil, outboundError(err)
	}
	r.Dst.Identity = s.Peer()
	return s, nil
}

// certificate waits for the pod's certificate, which it needs a moment after it starts.
func (p *Proxy) certificate(ctx context.Context) (*svid.SVID, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Wait)
	defer cancel()
	s, err := p.Source.SVID(ctx, p.id)
	if err != nil {
		return nil, &failure{telemetry.IdentityFailed, "identity error", err}
	}
	return s, nil
}

// ownPort reports whether an address is one of the proxy's own ports in this pod.
func (p *Proxy) ownPort(to netip.AddrPort) bool {
	if !proxyPort(to.Port()) {
		return false
	}
	if to.Addr().IsLoopback() || to.Addr().IsUnspecified() {
		return true
	}
	w := p.State.Pod(p.Cluster, p.pod.Namespace, p.pod.Name)
	return w == nil || w.Has(to.Addr())
}
