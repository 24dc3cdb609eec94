// Package ztunnel is the L4 proxy of a node: it serves every captured pod from inside the pod's own network namespace.
package ztunnel

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/xds/client"
	"github.com/ambit-mesh/ambit/ztunnel/internal/demand"
	"github.com/ambit-mesh/ambit/ztunnel/internal/inpod"
	"github.com/ambit-mesh/ambit/ztunnel/internal/proxy"
	"github.com/ambit-mesh/ambit/ztunnel/internal/resolve"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// Config of a node proxy. The zero value of a field that names a default takes it.
type Config struct {
	// Node, Pod, Namespace and IP say who we are: the node's name, our pod's name, namespace and address.
	Node, Pod, Namespace, IP string
	// ClusterID names this cluster. Default mesh.ClusterID.
	ClusterID string
	// Network that our pods are in. Default: the one without a name.
	Network string
	// TrustDomain of our pods and of all who may open tunnels to them. Default mesh.TrustDomain.
	TrustDomain string
	// PreferredNamespace is where a name or an address that several services share is looked for after the client's own
	// namespace. Default: nowhere.
	PreferredNamespace string
	// OnDemand asks the control plane only for what connections need, instead of keeping all workloads and services of
	// the mesh: less memory, a first connection that waits, and names of other registries that the DNS proxy cannot know.
	OnDemand bool
	// RegistryOnly refuses connections to what the mesh does not know. Default: they pass through.
	RegistryOnly bool
	// PolicyLogs tells of every admitted connection at level info. Default: debug.
	PolicyLogs bool
	// NoDNS leaves the DNS proxy out of the pods.
	NoDNS bool
	// Resolvers answer the pods' DNS queries that the mesh does not. Default: none, such queries fail.
	Resolvers []netip.AddrPort
	// ZDSSocket is where the node agent listens. Default mesh.ZDSSocket.
	ZDSSocket string
	// XDS is the connection to the control plane. Node, Handlers, Message, Ended, ClusterID and Log are filled in.
	XDS client.Config
	// CA issues the pods' certificates.
	CA certs.Authority
	// RootFile holds roots of TrustDomain besides those that the CA answers, and CRLFile revocation lists; both are read
	// again when they change. Default: none.
	RootFile, CRLFile string
	// SameNode carries connections between two pods of this ztunnel in memory, without encryption. Identities, policies,
	// logs and metrics stay as they are.
	SameNode bool
	// PostQuantum refuses key exchanges between proxies that do not resist quantum computers.
	PostQuantum bool
	// Grace is how long connections may finish after the end of Run's context. Default 30s.
	Grace time.Duration

	Ready   *lifecycle.Readiness
	Metrics *telemetry.Metrics
	Access  *telemetry.Access
	Log     *slog.Logger
}

// Ztunnel is a node proxy.
type Ztunnel struct {
	conf  Config
	state *state.Store
	certs *certs.Manager
	xds   *client.Client
	pods  *inpod.Client
	dns   *telemetry.DNS

	demand *demand.Asker // nil unless OnDemand
	routes *resolve.Resolver

	failures failures
	refusals *proxy.Damper
	unproven *hbone.Unproven

	listed chan struct{} // the agent has named all pods

	mu      sync.Mutex // guards proxies
	proxies map[string]*running
}

// New makes a node proxy; Run starts it.
func New(c Config) (*Ztunnel, error) {
	if c.ClusterID == "" {
		c.ClusterID = mesh.ClusterID
	}
	if c.TrustDomain == "" {
		c.TrustDomain = mesh.TrustDomain
	}
	if c.ZDSSocket == "" {
		c.ZDSSocket = mesh.ZDSSocket
	}
	if c.Grace == 0 {
		c.Grace = 30 * time.Second
	}
	z := &Ztunnel{
		conf:    c,
		state:   state.New(state.Config{Network: c.Network, TrustDomain: c.TrustDomain, Preferred: c.PreferredNamespace, RegistryOnly: c.RegistryOnly, Pick: rand.Uint64N}),
		proxies: map[string]*running{},
		listed:  make(chan struct{}),
		dns:     telemetry.NewDNS(),

		refusals: proxy.NewDamper(c.Log.With(telemetry.Scope("proxy"))),
		unproven: &hbone.Unproven{},
	}
	z.certs = certs.New(certs.Config{
		Authority: c.CA, RootFile: c.RootFile, TrustDomain: c.TrustDomain, CRLFile: c.CRLFile, Recheck: z.recheck, Log: c.Log.With(telemetry.Scope("certs")),
	})
	if err := c.Metrics.Register(z.dns.Collectors()...); err != nil {
		return nil, err
	}
	node, err := z.node()
	if err != nil {
		return nil, err
	}
	if z.demand = z.newDemand(); z.demand != nil && !c.NoDNS {
		c.Log.Warn("on demand, the DNS proxy knows the names of services only once somebody has connected to them; it asks the resolvers for others")
	}
	z.routes = z.newResolver()
	x := c.XDS
	x.Node, x.ClusterID, x.Log = node, c.ClusterID, c.Log.With(telemetry.Scope("xds"))
	x.Message = func(typeURL string, n int) {
		c.Metrics.XDS.Messages.WithLabelValues(typeURL).Inc()
		c.Metrics.XDS.Bytes.WithLabelValues(typeURL).Add(float64(n))
	}
	x.Ended = func(reason string) { c.Metrics.XDS.Terminations.WithLabelValues(reason).Inc() }
	x.Handlers = []client.Handler{
		client.Handle(mesh.TypeAddress, c.OnDemand, z.applyAddresses),
		client.Handle(mesh.TypeAuthorization, false, z.applyPolicies),
	}
	z.xds = client.New(x)
	z.pods = inpod.New(inpod.Config{
		Socket: c.ZDSSocket, Start: z.start, Synced: z.synced(c.Ready.Add("pods of the node agent")), Log: c.Log.With(telemetry.Scope("inpod")),
	})
	return z, nil
}

func (z *Ztunnel) node() (*discovery.Node, error) {
	c := z.conf
	meta, err := structpb.NewStruct(map[string]any{
		"NAME": c.Pod, "NAMESPACE": c.Namespace, "INSTANCE_IPS": c.IP, "NODE_NAME": c.Node, "CLUSTER_ID": c.ClusterID,
	})
	if err != nil {
		return nil, fmt.Errorf("introduce ourselves to the control plane: %w", err)
	}
	return &discovery.Node{
		Id:       fmt.Sprintf("ztunnel~%s~%s.%s~%s.svc.%s", c.IP, c.Pod, c.Namespace, c.Namespace, mesh.ClusterDomain),
		Metadata: meta,
	}, nil
}

// Run serves until ctx ends. Pods then take no more connections and those that are open may finish; certificates and
// configuration stay fresh until they have.
func (z *Ztunnel) Run(ctx context.Context) error {
	support, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g := lifecycle.NewGroup(support)
	g.Go("certificates", z.certs.Run)
	g.Go("control plane", z.xds.Run)
	g.Go("metrics", z.releaseMetrics)
	for _, typeURL := range []string{mesh.TypeAddress, mesh.TypeAuthorization} {
		done := z.conf.Ready.Add("first response of " + typeURL)
		g.Go("first response", func(ctx context.Context) error {
			select {
			case <-z.xds.Synced(typeURL):
				done()
			case <-ctx.Done():
			}
			return nil
		})
	}
	g.Go("first certificates", z.certify(z.conf.Ready.Add("certificates of the node's pods")))
	g.Go("pods", func(failed context.Context) error {
		defer end() // the last to need the others
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(failed, cancel)()
		z.configured(ctx)
		return z.pods.Run(ctx)
	})
	return g.Wait()
}
