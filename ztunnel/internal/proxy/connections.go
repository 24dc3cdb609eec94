package proxy

import (
	"context"
	"crypto/x509"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/authz"
	"github.com/ambit-mesh/ambit/telemetry"
)

// connections are those that a pod has open.
type connections struct {
	mu      sync.Mutex // guards below
	open    map[*connection]struct{}
	plain   map[netip.AddrPort]int // clients of inbound connections without a tunnel
	waiters []chan struct{}        // closed when open is empty
}

// connection is one of them. Inbound ones carry what policy decides on.
type connection struct {
	telemetry.Direction
	src, dialled, actual netip.AddrPort
	protocol             string
	service              string
	asked                authz.Conn
	cut                  context.CancelCauseFunc
	proofs               [][]*x509.Certificate // what both sides proved who they are with, where no tunnel did
	missing              time.Time             // since when a policy is missing that may admit it
}

func newConnections() *connections {
	return &connections{open: map[*connection]struct{}{}, plain: map[netip.AddrPort]int{}}
}

// isPlain tells connections whose client has a socket to the application's own port.
func (c *connection) isPlain() bool { return c.Direction == telemetry.Inbound && c.protocol == "TCP" }

// uses reports whether a client has a connection to the pod from this address and port.
func (cs *connections) uses(client netip.AddrPort) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.plain[client] > 0
}

func (cs *connections) add(c *connection) (remove func()) {
	cs.mu.Lock()
	cs.open[c] = struct{}{}
	if c.isPlain() {
		cs.plain[c.src]++
	}
	cs.mu.Unlock()
	return func() {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		delete(cs.open, c)
		if c.isPlain() {
			if cs.plain[c.src]--; cs.plain[c.src] == 0 {
				delete(cs.plain, c.src)
			}
		}
		if len(cs.open) == 0 {
			for _, w := range cs.waiters {
				close(w)
			}
			cs.waiters = nil
		}
	}
}

// set notes where a connection was routed.
func (cs *connections) set(c *connection, actual netip.AddrPort, tunnel bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.actual = actual
	if tunnel {
		c.protocol = "HBONE"
	}
}

// idle is closed once no connection is open.
func (cs *connections) idle() <-chan struct{} {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	w := make(chan struct{})
	if len(cs.open) == 0 {
		close(w)
	} else {
		cs.waiters = append(cs.waiters, w)
	}
	return w
}

// cutAll ends whatever is open.
func (cs *connections) cutAll(why error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		c.cut(why) // the connection's own goroutine does the rest
	}
}

// recheck cuts those without a tunnel whose certificates judge refuses.
func (cs *connections) recheck(judge func([]*x509.Certificate) error) {
	for _, c := range cs.list(telemetry.Inbound) {
		for _, chain := range c.proofs {
			if err := judge(chain); err != nil {
				c.cut(err)
			}
		}
	}
}

func (cs *connections) list(d telemetry.Direction) []*connection {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var out []*connection
	for c := range cs.open {
		if c.Direction == d {
			out = append(out, c)
		}
	}
	return out
}

// Connection is an open connection, for dumps.
type Connection struct {
	Direction            telemetry.Direction
	Src, Dialled, Actual netip.AddrPort
	Protocol             string // HBONE or TCP
	Service              string // host name that the client dialled, as it says; of what comes in only
}

// Connections lists what is open.
func (p *Proxy) Connections() []Connection {
	p.open.mu.Lock()
	defer p.open.mu.Unlock()
	out := make([]Connection, 0, len(p.open.open))
	for c := range p.open.open {
		out = append(out, Connection{c.Direction, c.src, c.dialled, c.actual, c.protocol, c.service})
	}
	slices.SortFunc(out, func(a, b Connection) int { return a.Src.Compare(b.Src) })
	return out
}

// missingGrace is how long an open connection survives a policy that is named but did not arrive yet: the two travel
// as different resources. New connections are refused meanwhile.
const missingGrace = time.Second

// recheck judges the open inbound connections anew after every change, until stop is closed.
func (p *Proxy) recheck(stop <-chan struct{}) {
	var judged *authz.Policies
	for {
		changed := p.State.Changed()
		var again <-chan time.Time
		policies, waiting := p.judge(time.Now(), judged)
		if judged = policies; waiting {
			judged, again = nil, time.After(missingGrace)
		}
		select {
		case <-changed:
		case <-again:
		case <-stop:
			return
		}
	}
}

// judge cuts the connections that are now denied, and reports whether some wait for a policy. Most changes of the mesh
// leave the pod's policies as they were judged last; then there is nothing to do.
func (p *Proxy) judge(now time.Time, judged *authz.Policies) (policies *authz.Policies, waiting bool) {
	w := p.State.Pod(p.Cluster, p.pod.Namespace, p.pod.Name)
	if w == nil || w.Identity != p.id {
		return nil, false // the pod is going away: what its policies were, nobody knows any more
	}
	policies = p.State.PoliciesOf(w)
	if policies == judged {
		return policies, false
	}
	for _, c := range p.open.list(telemetry.Inbound) {
		v := policies.Check(c.asked)
		switch {
		case v.Allow:
			c.missing = time.Time{}
		case v.Missing && c.missing.IsZero():
			c.missing, waiting = now, true
		case v.Missing && now.Sub(c.missing) < missingGrace:
			waiting = true
		default:
			c.cut(errPolicyChange(v))
		}
	}
	return policies, waiting
}

// verdict decides on a new connection. It waits for a policy that is named but has not arrived.
func (p *Proxy) verdict(ctx context.Context, c authz.Conn) (authz.Verdict, error) {
	var deadline <-chan time.Time
	for {
		changed := p.State.Changed()
		w, err := p.self(ctx, c.To.Addr())
		if err != nil {
			return authz.Verdict{}, err
		}
		v := p.State.PoliciesOf(w).Check(c)
		if !v.Missing {
			return v, nil
		}
		if deadline == nil {
			t := time.NewTimer(p.Wait)
			defer t.Stop()
			deadline = t.C
		}
		select {
		case <-changed:
		case <-deadline:
			return v, nil
		case <-ctx.Done():
			return v, context.Cause(ctx)
		}
	}
}
