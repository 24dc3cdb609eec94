// Command waypoint is the L7 proxy of the mesh; in the role router it is the ingress gateway.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ambit-mesh/ambit/admin"
	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/gateway"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/xds/client"
)

var version = "dev" // the build writes another

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "waypoint:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	c, err := parse(args, os.Getenv, os.Stderr)
	if err != nil {
		return err
	}
	levels, err := telemetry.ParseLevels(c.log)
	if err != nil {
		return fmt.Errorf("log level: %w", err)
	}
	format := telemetry.Text
	if c.logJSON {
		format = telemetry.JSON
	}
	log := slog.New(telemetry.NewHandler(os.Stderr, format, levels))
	return serve(ctx, c, log, levels)
}

func serve(ctx context.Context, c config, log *slog.Logger, levels *telemetry.Levels) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	registry := prometheus.NewRegistry()
	registry.MustRegister(telemetry.Build("waypoint", version), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ready := &lifecycle.Readiness{}
	tls, token := client.TLSFromFile(c.root, c.serverName), client.TokenFromFile(c.token)
	tunnels := &hbone.Dialer{Grace: c.grace}
	keys := certs.New(certs.Config{
		Authority: &certs.CA{Address: c.ca, TLS: tls, Token: token, ClusterID: c.clusterID}, Log: log,
		RootFile: c.meshRoot, TrustDomain: c.trustDomain, CRLFile: c.crl, Recheck: tunnels.Recheck,
	})
	tunnels.Source, tunnels.Roots = keys, keys
	keys.Want(c.id())
	g, err := gateway.New(gateway.Config{
		Workload: gateway.Workload{
			Name: c.workload(), Namespace: c.namespace, Principal: c.id().String(), App: cmp.Or(c.service, c.workload()), Version: c.revision,
			Cluster: c.clusterID, CanonicalName: cmp.Or(c.service, c.workload()), CanonicalRevision: c.revision,
		},
		Identity: c.id(),
		Tunnel: func(ctx context.Context, hop netip.AddrPort, expect []identity.ID, authority string) (net.Conn, error) {
			return tunnels.Dial(ctx, hbone.Hop{Addr: hop, Own: c.id(), Expect: expect}, authority, c.headers())
		},
		AccessLog: os.Stdout, AccessLogJSON: c.logJSON, TrustedHops: c.trustedHops, Grace: c.grace, Settle: c.settle,
		Metrics: registry, Ready: ready, Log: log,
	})
	if err != nil {
		return err
	}
	discover := client.New(client.Config{
		Address: c.xds, TLS: tls, Token: token, ClusterID: c.clusterID, Node: c.introduce(), Handlers: g.Handlers(), Log: log,
	})
	certified := ready.Add("certificate")
	context.AfterFunc(ctx, func() { ready.Add("draining") })
	debug, err := admin.Listen(ctx, c.admin, c.metrics, c.readiness)
	if err != nil {
		return err
	}
	more, err := admin.Listen(ctx, "", c.prometheus, "")
	if err != nil {
		return errors.Join(err, debug.Close())
	}
	pages := admin.Config{
		Name: "waypoint", Ready: ready, Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}),
		Levels: levels, Dump: admin.Value(func() any { return g.Dump() }), Quit: quit,
	}

	// Certificates, tunnels and discovery outlive the end, as long as requests may finish.
	support, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group := lifecycle.NewGroup(support)
	group.Go("certificates", keys.Run)
	group.Go("tunnels", tunnels.Run)
	group.Go("discovery", discover.Run)
	group.Go("first certificate", func(ctx context.Context) error {
		if _, err := keys.SVID(ctx, c.id()); err != nil {
			return err
		}
		certified()
		return nil
	})
	group.Go("debug server", func(ctx context.Context) error { return admin.Run(ctx, pages, debug) })
	if c.prometheus != "" {
		group.Go("metrics", func(ctx context.Context) error { return admin.Run(ctx, pages, more) })
	}
	group.Go("gateway", func(failed context.Context) error {
		defer end()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		context.AfterFunc(failed, cancel)
		return g.Run(ctx)
	})
	log.Info("waypoint started", "role", c.role, "identity", c.id(), "xds", c.xds)
	return group.Wait()
}

// introduce is our node for discovery.
func (c config) introduce() *discovery.Node {
	fields := map[string]*structpb.Value{}
	for k, v := range map[string]string{"NAME": c.pod, "NAMESPACE": c.namespace, "INSTANCE_IPS": c.ip, "NODE_NAME": c.node, "CLUSTER_ID": c.clusterID} {
		fields[k] = structpb.NewStringValue(v)
	}
	return &discovery.Node{Id: c.nodeID(), Cluster: c.workload(), Metadata: &structpb.Struct{Fields: fields}}
}

// headers tell the other end of a tunnel who we are, for its metrics; it believes our certificate about our identity.
func (c config) headers() http.Header {
	return http.Header{"Baggage": {strings.Join([]string{
		"k8s.cluster.name=" + c.clusterID, "k8s.namespace.name=" + c.namespace, "k8s.deployment.name=" + c.workload(),
		"service.name=" + cmp.Or(c.service, c.workload()), "service.version=" + c.revision,
	}, ",")}}
}
