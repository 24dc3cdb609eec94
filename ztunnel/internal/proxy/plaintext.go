package proxy

import (
	"context"
	"net"
	"net/netip"

	"github.com/ambit-mesh/ambit/authz"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/telemetry"
)

// servePlaintext carries a connection into the pod that came without a tunnel: nobody proved an identity.
func (p *Proxy) servePlaintext(ctx context.Context, c *net.TCPConn) {
	r := p.newReport(telemetry.Inbound, hbone.NewTraceparent())
	r.Src = p.client(addrOf(c.RemoteAddr()), r.Src.Identity, "")
	if err := p.plain(ctx, r, c); err != nil {
		p.reset(c)
		r.end(0, 0, err)
	}
}

// plain carries a connection to its end, or says why it is refused.
func (p *Proxy) plain(ctx context.Context, r *report, c *net.TCPConn) error {
	to, err := sock.OriginalDst(c)
	if err != nil {
		return errConnect(err)
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	r.Dst.Addr = to
	if proxyPort(to.Port()) {
		return errRecursive
	}
	self, err := p.self(ctx, to.Addr())
	if err != nil {
		return err
	}
	r.Dst = party(self, to, r.Dst.Identity)
	r.Service = serviceOf(p.State.ServiceAt(self, "", to.Port()))
	r.Type = "Passthrough"
	r.known()
	asked := authz.Conn{From: r.Src.Addr.Addr(), To: to}
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	defer p.open.add(&connection{
		Direction: telemetry.Inbound, src: r.Src.Addr, dialled: to, actual: to, protocol: "TCP", asked: asked, cut: cut,
	})()
	if err := p.admit(ctx, r, asked); err != nil {
		return err
	}
	app, err := p.dialApp(ctx, r.Src.Addr.Addr(), to)
	if err != nil {
		return err
	}
	r.opened()
	res := r.traffic.Join(ctx, c, app)
	r.end(res.Sent, res.Received, res.Err)
	return nil
}
