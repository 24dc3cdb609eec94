package proxy

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"

	"github.com/ambit-mesh/ambit/authz"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// wish is what a client that proved who it is wants of the pod.
type wish struct {
	peer      identity.ID
	local     netip.AddrPort // where it came in
	authority string
	host      string                // of the service that it means; empty if it does not say
	proofs    [][]*x509.Certificate // where no tunnel proved the peer
}

// entry is a way into the pod that was admitted and is open.
type entry struct {
	ctx   context.Context // ends when the connection must
	self  *state.Workload
	app   net.Conn
	leave func()
}

// refusal is an answer other than 200.
type refusal struct {
	status int
	err    error
}

// enter opens the way to what a client wants, or says why it is refused. The connection is listed before policies
// decide, so that no change between is missed.
func (p *Proxy) enter(ctx context.Context, r *report, w wish) (in *entry, no *refusal) {
	self, err := p.self(ctx, w.local.Addr())
	if err != nil {
		return nil, &refusal{http.StatusServiceUnavailable, err}
	}
	to, no := p.target(self, w.local, w.authority)
	if no != nil {
		return nil, no
	}
	r.Dst = party(self, to.app, p.id)
	if to.service == nil {
		to.service = p.State.ServiceAt(self, w.host, to.app.Port())
	}
	r.Service = serviceOf(to.service)
	r.known()

	asked := authz.Conn{Peer: w.peer, From: r.Src.Addr.Addr(), To: to.app}
	ctx, cut := context.WithCancelCause(ctx)
	remove := p.open.add(&connection{
		Direction: telemetry.Inbound, src: r.Src.Addr, dialled: w.local, actual: to.app, protocol: "HBONE", service: r.Service.Host,
		asked: asked, cut: cut, proofs: w.proofs,
	})
	leave := func() { remove(); cut(nil) }
	defer func() {
		if no != nil {
			leave()
		}
	}()
	if err := p.admit(ctx, r, asked); err != nil {
		return nil, &refusal{http.StatusUnauthorized, err}
	}
	app, err := p.dialApp(ctx, r.Src.Addr.Addr(), to.dial)
	if err != nil {
		return nil, &refusal{http.StatusServiceUnavailable, err}
	}
	if to.proxied.IsValid() {
		if _, err := app.Write(proxyHeader(r.Src.Addr, to.proxied, w.peer)); err != nil {
			_ = app.Close() // it is of no use
			return nil, &refusal{http.StatusServiceUnavailable, errConnect(err)}
		}
	}
	return &entry{ctx, self, app, leave}, nil
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
	p.Log.Log(ctx, p.PolicyLevel, "connection admitted", "policy", v.Policy, "why", v.Why, "src", asked.From, "dst", asked.To)
	return nil
}
