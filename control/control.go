// Package control is the control plane: objects become what proxies need, and identities become certificates.
package control

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/ca"
	"github.com/ambit-mesh/ambit/control/internal/push"
	"github.com/ambit-mesh/ambit/control/internal/status"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/control/source/meshconfig"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/server"
)

// Objects is where the control plane reads from. Run fills the store and keeps it up to date.
type Objects interface {
	Run(ctx context.Context) error
	Store() *source.Store
}

// Writer keeps the objects that the control plane owns: its CA's Secrets, the root ConfigMap of every namespace.
type Writer interface {
	StatusWriter
	// Create is Apply for an object that must not exist yet, readable or not.
	Create(ctx context.Context, o kinds.Object) error
}

// StatusWriter takes the status of objects: objects that hold only metadata and status.
type StatusWriter interface {
	Apply(ctx context.Context, o kinds.Object) error
	Delete(ctx context.Context, k kinds.Kind, namespace, name string) error
	// Read gives what was applied last, also by others and before a restart; nil for nothing.
	Read(ctx context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error)
}

// Callers verifies the tokens of proxies.
type Callers interface {
	Verify(ctx context.Context, token string) (source.Caller, error)
}

// Leader elects the one among several control planes that writes: status, root certificates, certificate authority.
type Leader interface {
	Run(ctx context.Context) error
	Leading() bool
	// While runs f whenever this control plane leads, until ctx ends or f fails. The context of f ends with the lead.
	While(ctx context.Context, f func(context.Context) error) error
}

// Config of a control plane. The zero values of names are Istio's defaults.
type Config struct {
	Objects Objects
	Writer  Writer
	Status  StatusWriter
	Callers Callers
	// Leader is nil for a control plane that is the only one.
	Leader Leader
	// Peers is how several tell each other what is in force; nil with a Leader of nil.
	Peers Peers

	// XDS, Monitor and Ready are where to serve: xDS and CA over TLS, metrics and debug, readiness.
	XDS, Monitor, Ready net.Listener
	// Validation is where an API server may ask about objects, over TLS; nil for nowhere.
	Validation net.Listener
	// Webhook is how it is told to; nil if that is somebody else's task.
	Webhook Webhook
	// Service is the name of the Service in front of us. Default istiod.
	Service string

	// Mesh is the mesh configuration that the names below are of, to tell of it; nil for none.
	Mesh *meshconfig.File

	// RootNamespace holds the mesh-wide policies and the CA's Secret. Default istio-system.
	RootNamespace string
	TrustDomain   string // default cluster.local
	ClusterDomain string // default cluster.local
	ClusterID     string // default Kubernetes
	// RootDistribute is how long a new root is trusted before anything is signed under it. Default 3m, for a kubelet
	// brings a changed ConfigMap to its pods within two minutes.
	RootDistribute time.Duration
	// RootOverlap is how long an old root stays trusted after nothing is signed under it any more. Default 25h, an hour
	// more than certificates live; where longer ones were signed, until they have ended.
	RootOverlap time.Duration
	// NodeAccounts may ask for the identities of the pods on their node. Default istio-system/ztunnel.
	NodeAccounts []string
	Version      string
	Log          *slog.Logger
}

func (c Config) withDefaults() Config {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&c.RootNamespace, mesh.SystemNamespace)
	set(&c.TrustDomain, mesh.TrustDomain)
	set(&c.ClusterDomain, mesh.ClusterDomain)
	set(&c.ClusterID, mesh.ClusterID)
	set(&c.Service, mesh.IstiodService)
	set(&c.Version, "dev")
	if c.RootDistribute == 0 {
		c.RootDistribute = ca.Distribute
	}
	if c.RootOverlap == 0 {
		c.RootOverlap = ca.Overlap
	}
	if len(c.NodeAccounts) == 0 {
		c.NodeAccounts = []string{c.RootNamespace + "/ztunnel"}
	}
	return c
}

// Control is a control plane.
type Control struct {
	conf  Config
	store *source.Store
	out   push.Outputs
	ready lifecycle.Readiness
	count *metrics
}

// New makes a control plane; Run starts it.
func New(c Config) *Control {
	c = c.withDefaults()
	st, count := c.Objects.Store(), newMetrics(c.Version)
	st.Applied = count.applied
	return &Control{conf: c, store: st, count: count, out: push.New(st, ambient.Config{
		ClusterID: c.ClusterID, TrustDomain: c.TrustDomain, ClusterDomain: c.ClusterDomain, RootNamespace: c.RootNamespace,
	}, c.NodeAccounts)}
}

// Run serves until ctx ends. It takes over all listeners.
func (c *Control) Run(ctx context.Context) error {
	serving := c.ready.Add("objects and certificate authority")
	g := lifecycle.NewGroup(ctx)
	g.Go("objects", c.conf.Objects.Run)
	g.Go("readiness", func(ctx context.Context) error { return lifecycle.HTTP{}.Serve(ctx, c.conf.Ready, c.readiness()) })
	g.Go("serve", func(ctx context.Context) error {
		defer c.conf.XDS.Close()
		defer c.conf.Monitor.Close()
		if c.conf.Validation != nil {
			defer c.conf.Validation.Close()
		}
		select {
		case <-c.store.Objects.Pods.Synced():
		case <-ctx.Done():
			return nil
		}
		return c.serve(ctx, serving)
	})
	return g.Wait()
}

// serve runs what needs objects to be there.
func (c *Control) serve(ctx context.Context, serving func()) error {
	authority := newAuthority(c.conf, c.store.Objects)
	if err := authority.open(ctx); err != nil {
		return err
	}
	addresses := newAddressing(c)
	addresses.round(ctx) // before anybody is told of services
	rules := ca.Rules{TrustDomain: c.conf.TrustDomain, Trusted: c.conf.NodeAccounts, Pods: newPods(c.store.Objects)}
	d := door{callers: c.conf.Callers, rules: rules, nodeAccounts: c.conf.NodeAccounts}
	force := newForcing(c)
	xds := server.New(server.Config[source.Caller]{
		Authenticate: d.authenticate, Admit: d.admit, Key: func(c source.Caller) string { return c.Account() + "/" + c.Pod },
		Types: c.out.Types, Log: c.conf.Log, Sent: c.count.sent, Heard: c.count.heard, Answered: force.answered,
	})
	defer xds.Close()
	signer := &ca.Server{
		Authority: authority.signer, Issued: authority.signed, Callers: c.conf.Callers, Log: c.conf.Log, Now: time.Now, Count: c.count.certificate,
		Rules: rules,
	}
	c.count.watchMesh(c.conf.Mesh)
	c.count.watch(c.conf.Version, func() int { return collection.Len(c.out.Services) }, func() int { return len(c.problems()) }, xds, authority)
	rpc := grpc.NewServer(append(server.Options(), grpc.Creds(credentials.NewTLS(authority.serverTLS())))...)
	xds.Register(rpc)
	signer.Register(rpc)

	g := lifecycle.NewGroup(ctx)
	g.Go("xds and certificates", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, rpc.Stop)
		defer stop()
		if err := rpc.Serve(c.conf.XDS); ctx.Err() == nil {
			return fmt.Errorf("serve %s: %w", c.conf.XDS.Addr(), err)
		}
		return nil
	})
	g.Go("monitor", func(ctx context.Context) error {
		return lifecycle.HTTP{}.Serve(ctx, c.conf.Monitor, c.monitor(d, c.debugPages(xds, authority)))
	})
	g.Go("authority", authority.follow)
	g.Go("addresses", addresses.follow)
	g.Go("roots", c.leading(func(ctx context.Context) error { return c.distributeRoots(ctx, authority) }))
	g.Go("what is in force", func(ctx context.Context) error { return force.run(ctx, xds) })
	g.Go("status", c.leading(func(ctx context.Context) error { return status.Keep(ctx, c.out.Statuses, c.conf.Status, c.conf.Log) }))
	if c.conf.Validation != nil {
		g.Go("validation", func(ctx context.Context) error { return c.serveWebhook(ctx, authority) })
	}
	if c.conf.Webhook != nil {
		hook := &webhook{c: c, authority: authority}
		c.count.watchWebhook(hook.inForce.Load)
		g.Go("webhook", c.leading(hook.keep))
	}
	if force.peers != nil {
		g.Go("peers", force.peers.run)
	}
	if c.conf.Leader != nil {
		g.Go("election", c.conf.Leader.Run)
	}
	serving()
	c.conf.Log.Info("control plane is serving", "xds", c.conf.XDS.Addr().String(), "trustDomain", c.conf.TrustDomain)
	return g.Wait()
}

// leading is f for those who must lead to do it.
func (c *Control) leading(f func(context.Context) error) func(context.Context) error {
	if c.conf.Leader == nil {
		return f
	}
	return func(ctx context.Context) error { return c.conf.Leader.While(ctx, f) }
}
