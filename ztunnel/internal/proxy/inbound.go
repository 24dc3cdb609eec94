package proxy

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// serveTunnel answers a tunnel that wants into the pod.
func (p *Proxy) serveTunnel(ctx context.Context, t hbone.Tunnel) {
	trace, err := hbone.ParseTraceparent(t.Header().Get("Traceparent"))
	if err != nil {
		trace = hbone.NewTraceparent() // the client told none that can be used
	}
	r := p.newReport(telemetry.Inbound, trace)
	r.Mutual, r.Type = true, state.Direct
	local, remote := addrOf(t.LocalAddr()), addrOf(t.RemoteAddr())
	r.Src = p.client(remote, t.Peer(), t.Header().Get("Baggage"))
	r.Hop, r.Dst.Addr = local, local
	f, _ := hbone.ParseForwarded(t.Header().Get("Forwarded")) // what cannot be read says nothing
	in, no := p.enter(ctx, r, wish{peer: t.Peer(), local: local, authority: t.Authority(), host: f.Host})
	if no != nil {
		t.Refuse(no.status, no.err.Error())
		r.end(0, 0, no.err)
		return
	}
	defer in.leave()
	h := http.Header{}
	h.Set("Baggage", p.baggage(in.self))
	tunnel, err := t.Accept(h)
	if err != nil {
		_ = in.app.Close() // nothing of the client was sent on it
		r.end(0, 0, fmt.Errorf("accept the tunnel: %w", err))
		return
	}
	r.inverse = true // the application is the server
	r.opened()
	res := r.traffic.Join(in.ctx, in.app, tunnel)
	r.end(res.Received, res.Sent, res.Err)
}
