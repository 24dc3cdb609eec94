package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/ambit-mesh/ambit/authz"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// refusal is an answer other than 200.
type refusal struct {
	status int
	err    error
}

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
	if no := p.answer(ctx, r, t, local); no != nil {
		t.Refuse(no.status, no.err.Error())
		r.end(0, 0, no.err)
	}
}

// answer carries a tunnel to its end, or says why it is refused.
func (p *Proxy) answer(ctx context.Context, r *report, t hbone.Tunnel, local netip.AddrPort) *refusal {
	self, err := p.self(ctx, local.Addr())
	if err != nil {
		return &refusal{http.StatusServiceUnavailable, err}
	}
	to, svc, no := p.target(self, local, t.Authority())
	if no != nil {
		return no
	}
	r.Dst = party(self, to, p.id)
	if svc == nil {
		f, _ := hbone.ParseForwarded(t.Header().Get("Forwarded")) // what cannot be read says nothing
		svc = p.State.ServiceAt(self, f.Host, to.Port())
	}
	r.Service = serviceOf(svc)
	r.known()

	asked := authz.Conn{Peer: t.Peer(), From: r.Src.Addr.Addr(), To: to}
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	defer p.open.add(&connection{
		Direction: telemetry.Inbound, src: r.Src.Addr, dialled: local, actual: to, protocol: "HBONE", asked: asked, cut: cut,
	})()
	if err := p.admit(ctx, r, asked); err != nil {
		return &refusal{http.StatusUnauthorized, err}
	}
	app, err := p.dialApp(ctx, r.Src.Addr.Addr(), to)
	if err != nil {
		return &refusal{http.StatusServiceUnavailable, err}
	}
	h := http.Header{}
	h.Set("Baggage", baggageOf(self).String())
	tunnel, err := t.Accept(h)
	if err != nil {
		_ = app.Close() // nothing was sent on it
		r.end(0, 0, fmt.Errorf("accept the tunnel: %w", err))
		return nil
	}
	r.inverse = true // the application is the server
	r.opened()
	res := r.traffic.Join(ctx, app, tunnel)
	r.end(res.Received, res.Sent, res.Err)
	return nil
}

// admit applies policy. The caller has listed the connection before, so that no change between is missed.
func (p *Proxy) admit(ctx context.Context, r *report, asked authz.Conn) error {
	v, err := p.verdict(ctx, asked)
	if err != nil {
		return err
	}
	for _, d := range v.DryRun {
		if !p.Refusals.pass() {
			break
		}
		p.Log.Info("dry-run policy", "policy", d.Policy, "allow", d.Allow, "why", d.Why, "src", asked.From, "peer", asked.Peer.String(), "dst", asked.To)
	}
	if !v.Allow {
		r.refused(v)
		return errDenied(v)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.Log.Debug("connection admitted", "policy", v.Policy, "why", v.Why, "src", asked.From, "dst", asked.To)
	return nil
}

// target says which of the pod's ports an authority means. Anything that is not the pod's own is refused before any
// dial: this is no relay.
func (p *Proxy) target(self *state.Workload, local netip.AddrPort, authority string) (netip.AddrPort, *state.Service, *refusal) {
	bad := func(format string, args ...any) (netip.AddrPort, *state.Service, *refusal) {
		return netip.AddrPort{}, nil, &refusal{http.StatusBadRequest, &failure{flag: telemetry.ConnectFailed, text: fmt.Sprintf(format, args...)}}
	}
	to, err := netip.ParseAddrPort(authority)
	var svc *state.Service
	if err == nil {
		to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	} else {
		host, portText, err := net.SplitHostPort(authority)
		if err != nil {
			return bad("authority %q: %v", authority, err)
		}
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil {
			return bad("authority %q: %v", authority, err)
		}
		if svc = p.State.ServiceOf(host, self.Namespace); svc == nil {
			return bad("unknown service: %s", host)
		}
		if !self.Serves(svc) {
			return bad("service %s does not select %s", svc.Key(), self.UID)
		}
		target, ok := p.State.Target(self, svc, uint16(port))
		if !ok {
			return netip.AddrPort{}, nil, &refusal{http.StatusServiceUnavailable, &failure{flag: telemetry.ConnectFailed, text: fmt.Sprintf("service %s has no port %d", svc.Key(), port)}}
		}
		to = netip.AddrPortFrom(local.Addr(), target)
	}
	if proxyPort(to.Port()) {
		return netip.AddrPort{}, nil, &refusal{http.StatusBadRequest, errRecursive}
	}
	if !self.Has(to.Addr()) {
		return bad("ip mismatch: %s != %s", to.Addr(), local.Addr())
	}
	return to, svc, nil
}
