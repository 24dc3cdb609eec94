package proxy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/crl"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/identity/svid"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// neighbourOf finds the proxy of the pod that a route leads to, if it is ours too and connections may go there without
// a tunnel. The pod must have the address: the one that the route was made for may be gone.
func (p *Proxy) neighbourOf(route state.Route) *Proxy {
	if p.Neighbour == nil || route.Kind != state.HBONE || route.Type != state.Direct || route.Workload == nil {
		return nil
	}
	if route.Hop.Addr.Addr() != route.To.Addr() || !route.Workload.Has(route.To.Addr()) {
		return nil // by way of another machine
	}
	n := p.Neighbour(route.Workload)
	if n == nil || !n.owns(route.To.Addr()) {
		return nil
	}
	return n
}

// serveNeighbour carries a connection to a pod of this ztunnel without a tunnel. The bytes stay in memory, so they are
// not encrypted; all else is as through a tunnel: both must have valid certificates and be who they should be, the same
// policies decide, and both sides report.
func (p *Proxy) serveNeighbour(ctx context.Context, c *net.TCPConn, r *report, route state.Route, n *Proxy) {
	if err := p.provenTo(ctx, n, route.Hop.Expect); err != nil {
		p.reset(c)
		r.end(0, 0, err)
		return
	}
	r.Dst.Identity = n.id
	in := n.newReport(telemetry.Inbound, r.span)
	in.Mutual, in.Type = true, state.Direct
	in.Src = n.client(r.Src.Addr, p.id, "")
	in.Hop, in.Dst.Addr = route.Hop.Addr, route.Hop.Addr
	way, no := n.enter(ctx, in, wish{
		peer: p.id, local: route.Hop.Addr, authority: route.To.String(), host: r.Service.Host,
		proofs: [][]*x509.Certificate{p.proof.chain(), n.proof.chain()},
	})
	if no != nil {
		p.reset(c)
		in.end(0, 0, no.err)
		r.end(0, 0, outboundError(&hbone.StatusError{Code: no.status}))
		return
	}
	defer way.leave()
	in.twin = r
	in.opened()
	r.opened()
	res := r.traffic.Join(way.ctx, c, way.app)
	here, there := p.blame(res.Err)
	in.end(res.Sent, res.Received, there)
	r.end(res.Sent, res.Received, here)
}

// blame parts the reason why a connection to a neighbour broke: through a tunnel each side would see its own, and only
// a break of the other.
func (p *Proxy) blame(err error) (client, server error) {
	broken := fmt.Errorf("tunnel to application: %w", &hbone.ResetError{Code: "CANCEL", Peer: true})
	if e, ok := errors.AsType[*crl.RevokedError](err); ok {
		if id, err := svid.Identity(e.Certificate); err == nil && id == p.id {
			return broken, e // the server does not trust us any more
		}
		return e, broken
	}
	if _, denied := errors.AsType[*lateDenial](err); denied {
		return broken, err
	}
	return err, err
}

// provenTo does what a handshake between two proxies does: each has a certificate that the other accepts, and the
// server is one of those that the client expects.
func (p *Proxy) provenTo(ctx context.Context, n *Proxy, expect []identity.ID) error {
	if err := p.proves(ctx, x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	if err := mtls.InTrustDomain(n.TrustDomain)(p.id); err != nil {
		return tlsError(err)
	}
	if err := n.proves(ctx, x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	if err := mtls.OneOf(expect...)(n.id); err != nil {
		return tlsError(err)
	}
	return nil
}

// proof is that the pod's certificate was verified as a peer would.
type proof struct {
	mu   sync.Mutex // guards below
	svid *svid.SVID
	at   time.Time
	uses map[x509.ExtKeyUsage]bool
}

// provenFor is how long a verification holds: it costs more than all else about a connection.
const provenFor = time.Second

// proves waits for the pod's certificate and verifies it.
func (p *Proxy) proves(ctx context.Context, use x509.ExtKeyUsage) error {
	s, err := p.certificate(ctx)
	if err != nil {
		return err
	}
	p.proof.mu.Lock()
	defer p.proof.mu.Unlock()
	if p.proof.svid != s || time.Since(p.proof.at) > provenFor {
		p.proof.svid, p.proof.at, p.proof.uses = s, time.Now(), map[x509.ExtKeyUsage]bool{}
	}
	if p.proof.uses[use] {
		return nil
	}
	if err := mtls.Verify(s.Chain, p.id.TrustDomain, p.Roots, use, time.Time{}); err != nil {
		return tlsError(fmt.Errorf("peer %s: %w", p.id, err))
	}
	p.proof.uses[use] = true
	return nil
}

// chain is the certificate that was verified last.
func (f *proof) chain() []*x509.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.svid == nil {
		return nil
	}
	return f.svid.Chain
}

// owns reports whether the pod has an address: its namespace, whatever is said of it. It has it for life.
func (p *Proxy) owns(a netip.Addr) bool {
	if _, ok := p.owned.Load(a); ok {
		return true
	}
	ok, err := sock.Owns(p.pod.NS, a)
	if err != nil {
		p.Log.Warn("a neighbour is reached through a tunnel", "error", err)
	}
	if ok {
		p.owned.Store(a, struct{}{})
	}
	return ok
}
