// Package proxy carries the connections of one pod: out of it through tunnels, and into it as policy admits.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/identity/svid"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// Config is what the proxies of a node share.
type Config struct {
	State *state.Store
	// Route decides where a connection goes that dialled an address from inside a pod; it may wait for what it needs to
	// know. Default: State's, which waits for nothing.
	Route  func(ctx context.Context, pod *netns.Namespace, from *state.Workload, to netip.AddrPort) state.Route
	Source svid.Source
	Roots  svid.Roots
	// TrustDomain is the only one whose peers may open tunnels.
	TrustDomain string
	// Cluster is the id under which the control plane names this cluster's pods.
	Cluster string
	Access  *telemetry.Access
	// Failed is told of each connection that went wrong, after its record is written. Nil tells nobody.
	Failed func(telemetry.Record)
	TCP    *telemetry.TCP
	// PolicyLevel is that of the lines about connections that policy admits. Default info; debug is usual.
	PolicyLevel slog.Level
	// Refusals bounds the log lines of connections that are refused. Default: one of the proxy's own.
	Refusals *Damper
	// Unproven bounds the connections whose peers have not proved who they are. Default: one of the proxy's own.
	Unproven *hbone.Unproven
	// PostQuantum refuses key exchanges that do not resist quantum computers.
	PostQuantum bool
	Log         *slog.Logger
	// Neighbour finds the proxy of a workload that this ztunnel serves too, nil if there is none. Connections to it then
	// go there without a tunnel, so without encryption. Default: all go through tunnels.
	Neighbour func(*state.Workload) *Proxy
	// Grace is how long connections may finish after the end of Run's context. Default 30s.
	Grace time.Duration
	// Wait is how long a connection waits for what is not there yet: the pod's certificate, its workload, a policy
	// that it names. Default 10s.
	Wait time.Duration
}

// Pod is the pod to serve. NS must stay open until Run has returned.
type Pod struct {
	UID, Name, Namespace, ServiceAccount string
	NS                                   *netns.Namespace
}

// Proxy serves one pod.
type Proxy struct {
	Config
	pod       Pod
	id        identity.ID
	dialer    *hbone.Dialer
	server    *hbone.Server
	open      *connections
	proof     proof
	owned     sync.Map // addresses that the pod's namespace has
	outbound  *port
	plaintext *port
	tunnels   *port

	introduced atomic.Pointer[introduction] // the last one
}

const (
	connectTimeout = 10 * time.Second
	defaultGrace   = 30 * time.Second
	defaultWait    = 10 * time.Second
	// lastWord is how much longer tunnels live than the connections in them, so that these end with their own reason.
	lastWord = 250 * time.Millisecond
)

// Open opens the pod's listeners; Run serves them.
func Open(c Config, pod Pod) (*Proxy, error) {
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.Wait == 0 {
		c.Wait = defaultWait
	}
	p := &Proxy{
		Config: c, pod: pod, open: newConnections(),
		id: identity.ID{TrustDomain: c.TrustDomain, Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount},
	}
	p.Log = c.Log.With("pod", pod.Namespace+"/"+pod.Name)
	if p.Route == nil {
		p.Route = func(_ context.Context, _ *netns.Namespace, from *state.Workload, to netip.AddrPort) state.Route {
			return p.State.Route(from, to)
		}
	}
	if p.Refusals == nil {
		p.Refusals = NewDamper(p.Log)
	}
	p.server = &hbone.Server{
		TLS: p.serverTLS(), Handler: p.serveTunnel, Grace: c.Grace + lastWord, Unproven: c.Unproven, Refused: p.unproven, Log: p.Log,
	}
	p.dialer = &hbone.Dialer{Source: c.Source, Roots: c.Roots, DialTCP: p.dialHop, ConnectTimeout: connectTimeout, Grace: lastWord}
	if c.PostQuantum {
		p.dialer.Groups = mtls.PostQuantum()
	}
	before, err := sock.Listeners(pod.NS, mesh.PortOutbound, mesh.PortPlaintext, mesh.PortHBONE)
	if err != nil {
		p.Log.Warn("not known who else listens: a restart may lose connections", "error", err)
	}
	for _, l := range []struct {
		port uint16
		into **port
	}{{mesh.PortOutbound, &p.outbound}, {mesh.PortPlaintext, &p.plaintext}, {mesh.PortHBONE, &p.tunnels}} {
		if *l.into, err = openPort(pod.NS, l.port, before[l.port], p.Log); err != nil {
			return nil, errors.Join(err, p.closeListeners())
		}
	}
	return p, nil
}

func (p *Proxy) closeListeners() error {
	var errs []error
	for _, l := range []*port{p.outbound, p.plaintext, p.tunnels} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends. It then hands over to a successor, lets what is open finish, and cuts what is left after
// Grace.
func (p *Proxy) Run(ctx context.Context) error {
	// What is open outlives ctx by Grace. New connections are taken until they are handed over.
	life, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	taking, stop := context.WithCancel(life)
	defer stop()
	stopWatch := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { p.recheck(stopWatch) })

	g := lifecycle.NewGroup(taking)
	g.Go("outbound", func(ctx context.Context) error { return p.accept(ctx, life, p.outbound, p.serveOutbound) })
	g.Go("inbound", func(ctx context.Context) error { return p.accept(ctx, life, p.plaintext, p.servePlaintext) })
	g.Go("tunnels out", func(context.Context) error { return p.dialer.Run(life) }) // also for those accepted last
	g.Go("tunnels in", func(ctx context.Context) error {
		return p.server.Serve(ctx, outsiders{p.tunnels})
	})
	g.Go("drain", func(failed context.Context) error {
		select {
		case <-ctx.Done():
			p.drain(failed, stop)
		case <-failed.Done(): // the pod is without a proxy until it is opened again
		}
		cut(errDrained)
		p.open.cutAll(errDrained)
		return nil
	})
	err := g.Wait()
	close(stopWatch)
	watch.Wait()
	return errors.Join(err, p.closeListeners(), p.dialer.Close())
}

// drain hands over, stops taking connections and waits until none is open, for no longer than Grace.
func (p *Proxy) drain(failed context.Context, stop func()) {
	t := time.NewTimer(p.Grace)
	defer t.Stop()
	p.handOver(failed)
	stop()
	select {
	case <-t.C:
	case <-p.open.idle():
	}
}

// maxConns bounds the connections of one direction of one pod.
const maxConns = 32 << 10

// accept serves each connection in a goroutine of its own until ctx ends, and waits for them. They live in life.
func (p *Proxy) accept(ctx, life context.Context, l *port, serve func(context.Context, *net.TCPConn)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // Run reports what closing says
	defer stop()
	slots := make(chan struct{}, maxConns)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if !errors.Is(err, net.ErrClosed) && temporary(err) {
				p.Log.Warn("connection not accepted", "error", err)
				select {
				case <-time.After(50 * time.Millisecond): // descriptors are short: others must end first
				case <-ctx.Done():
				}
				continue
			}
			return fmt.Errorf("accept: %w", err)
		}
		_ = c.SetLinger(0) // if we die, it breaks instead of ending; Join lets it end. It fails only on a socket that is gone
		select {
		case slots <- struct{}{}:
		default:
			p.Log.Warn("connection refused, too many are open", "limit", maxConns)
			p.reset(c)
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			serve(life, c)
		})
	}
}

func temporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}

// reset ends a connection that was refused: its peer sees a reset and no byte.
func (p *Proxy) reset(c *net.TCPConn) {
	if err := sock.Reset(c); err != nil {
		p.Log.Debug("connection not reset", "error", err)
	}
}

func (p *Proxy) serverTLS() *tls.Config {
	c := mtls.Server(func(*tls.ClientHelloInfo) (identity.ID, error) { return p.id, nil }, p.Source, p.Roots, mtls.InTrustDomain(p.TrustDomain))
	if p.PostQuantum {
		c.CurvePreferences = mtls.PostQuantum()
	}
	return c
}

// unproven writes down a connection to the tunnel port whose peer did not prove who it is.
func (p *Proxy) unproven(c net.Conn, err error) {
	r := p.newReport(telemetry.Inbound, hbone.NewTraceparent())
	r.Early, r.Src.Addr, r.Dst.Addr = true, addrOf(c.RemoteAddr()), addrOf(c.LocalAddr())
	r.end(0, 0, tlsError(err))
}

// Recheck cuts the tunnels whose peers' certificates judge refuses.
func (p *Proxy) Recheck(judge func(chain []*x509.Certificate) error) {
	p.dialer.Recheck(judge)
	p.server.Recheck(judge)
	p.open.recheck(judge)
}

// self is the pod as the control plane knows it. It waits for it, and for one that has the address: what is known may
// still be of an earlier pod of the same name.
func (p *Proxy) self(ctx context.Context, has netip.Addr) (*state.Workload, error) {
	var deadline <-chan time.Time
	for {
		changed := p.State.Changed()
		w := p.State.Pod(p.Cluster, p.pod.Namespace, p.pod.Name)
		why := "it was not received from the control plane"
		switch {
		case w == nil:
		case w.Identity != p.id:
			why = fmt.Sprintf("it is known as %s, but runs as %s", w.Identity, p.id)
		case !w.Has(has):
			why = fmt.Sprintf("it is known with the addresses %s, but has %s", w.Addresses, has)
		default:
			return w, nil
		}
		if deadline == nil {
			t := time.NewTimer(p.Wait)
			defer t.Stop()
			deadline = t.C
		}
		select {
		case <-changed:
		case <-deadline:
			return nil, fmt.Errorf("workload of pod %s/%s: %s", p.pod.Namespace, p.pod.Name, why)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func addrOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
