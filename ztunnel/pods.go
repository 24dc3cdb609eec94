package ztunnel

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/dns"
	"github.com/ambit-mesh/ambit/ztunnel/internal/inpod"
	"github.com/ambit-mesh/ambit/ztunnel/internal/proxy"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// running is a pod that is served; its proxy is that which was opened last.
type running struct {
	pod     inpod.Pod
	proxy   *proxy.Proxy
	pending bool // it failed, and is not open again
}

// servers are what runs in a pod; dns is nil where pods have none.
type servers struct {
	proxy *proxy.Proxy
	dns   *dns.Server
}

func (z *Ztunnel) open(pod inpod.Pod) (*servers, error) {
	out := &servers{}
	var err error
	if !z.conf.NoDNS {
		out.dns, err = dns.Open(z.dnsConfig(), dns.Pod{Name: pod.Name, Namespace: pod.Namespace, NS: pod.NS})
		if err != nil {
			return nil, err
		}
	}
	if out.proxy, err = proxy.Open(z.proxyConfig(), proxyPod(pod)); err != nil {
		if out.dns != nil {
			err = errors.Join(err, out.dns.Close())
		}
		return nil, err
	}
	return out, nil
}

// run serves until ctx ends and the connections have. Names are answered until then: who finishes may still ask.
func (s *servers) run(ctx context.Context) error {
	if s.dns == nil {
		return s.proxy.Run(ctx)
	}
	support, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g := lifecycle.NewGroup(support)
	g.Go("dns", s.dns.Run)
	g.Go("proxy", func(failed context.Context) error {
		defer end()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(failed, cancel)()
		return s.proxy.Run(ctx)
	})
	return g.Wait()
}

// Resolvers reads the addresses of resolvers from a file of the form of resolv.conf(5).
func Resolvers(r io.Reader) ([]netip.AddrPort, error) { return dns.Servers(r) }

func (z *Ztunnel) dnsConfig() dns.Config {
	return dns.Config{Names: z.state, Resolvers: z.conf.Resolvers, Source: z.canonical, Metrics: z.dns, Log: z.conf.Log.With(telemetry.Scope("dns"))}
}

// start serves a pod from now on, until stop is called, which waits for its connections.
func (z *Ztunnel) start(_ context.Context, pod inpod.Pod) (stop func(), err error) {
	p, err := z.open(pod)
	if err != nil {
		return nil, err
	}
	id := identity.ID{TrustDomain: z.conf.TrustDomain, Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount}
	z.certs.Want(id)
	release := z.wantPod(pod)
	z.conf.Metrics.Proxies.Started.Inc()
	z.conf.Metrics.Proxies.Active.Inc()
	r := &running{pod: pod, proxy: p.proxy}
	z.mu.Lock()
	z.proxies[pod.UID] = r
	z.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background()) // it outlives the connection to the agent
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		z.serve(ctx, r, p)
	}()
	return func() {
		cancel()
		<-ended
		z.mu.Lock()
		if z.proxies[pod.UID] == r {
			delete(z.proxies, pod.UID)
		}
		z.mu.Unlock()
		z.certs.Forget(id)
		release()
		z.conf.Metrics.Proxies.Active.Dec()
		z.conf.Metrics.Proxies.Stopped.Inc()
	}, nil
}

// reopenAfter is how long a pod's proxy that failed waits until it is opened again.
const reopenAfter = time.Second

// serve runs a pod's proxy until ctx ends, and opens it again when it fails.
func (z *Ztunnel) serve(ctx context.Context, r *running, p *servers) {
	for {
		err := p.run(ctx)
		if ctx.Err() != nil {
			if err != nil {
				z.conf.Log.Warn("pod's proxy did not end well", "pod", r.pod.Namespace+"/"+r.pod.Name, "error", err)
			}
			return
		}
		z.conf.Log.Error("pod's proxy failed, will open it again", "pod", r.pod.Namespace+"/"+r.pod.Name, "error", err)
		z.pending(r, true)
		for p = nil; p == nil; {
			select {
			case <-ctx.Done():
				z.pending(r, false)
				return
			case <-time.After(reopenAfter):
			}
			if p, err = z.open(r.pod); err != nil {
				p = nil
				z.conf.Log.Warn("pod's proxy not opened", "pod", r.pod.Namespace+"/"+r.pod.Name, "error", err)
			}
		}
		z.pending(r, false)
		z.mu.Lock()
		r.proxy = p.proxy
		z.mu.Unlock()
	}
}

func (z *Ztunnel) pending(r *running, is bool) {
	z.conf.Metrics.Proxies.Pending.Add(map[bool]float64{true: 1, false: -1}[is])
	z.mu.Lock()
	defer z.mu.Unlock()
	r.pending = is
}

func (z *Ztunnel) proxyConfig() proxy.Config {
	level := slog.LevelDebug
	if z.conf.PolicyLogs {
		level = slog.LevelInfo
	}
	c := proxy.Config{
		State: z.state, Route: z.routes.Route, PolicyLevel: level, Source: z.certs, Roots: z.certs, TrustDomain: z.conf.TrustDomain, Cluster: z.conf.ClusterID,
		Access: z.conf.Access, TCP: z.conf.Metrics.TCP, Log: z.conf.Log.With(telemetry.Scope("proxy")), Grace: z.conf.Grace, Failed: z.failed,
		Refusals: z.refusals, Unproven: z.unproven, PostQuantum: z.conf.PostQuantum,
	}
	if z.conf.SameNode {
		c.Neighbour = z.neighbour
	}
	return c
}

// neighbour finds the proxy of a workload that is a pod of ours.
func (z *Ztunnel) neighbour(w *state.Workload) *proxy.Proxy {
	if w.UID != z.conf.ClusterID+"//Pod/"+w.Namespace+"/"+w.Name {
		return nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, r := range z.proxies {
		if r.pod.Namespace == w.Namespace && r.pod.Name == w.Name {
			return r.proxy
		}
	}
	return nil
}

func proxyPod(p inpod.Pod) proxy.Pod {
	return proxy.Pod{UID: p.UID, Name: p.Name, Namespace: p.Namespace, ServiceAccount: p.ServiceAccount, NS: p.NS}
}
