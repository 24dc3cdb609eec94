// Command waypoint is the L7 proxy of the mesh; in the role router it is the ingress gateway.
package main

import (
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
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/gateway"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/xds/client"
)

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
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.log)); err != nil {
		return fmt.Errorf("log level: %w", err)
	}
	var log *slog.Logger
	if o := (&slog.HandlerOptions{Level: level}); c.logJSON {
		log = slog.New(slog.NewJSONHandler(os.Stderr, o))
	} else {
		log = slog.New(slog.NewTextHandler(os.Stderr, o))
	}
	return serve(ctx, c, log)
}

func serve(ctx context.Context, c config, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ready := &lifecycle.Readiness{}
	tls, token := client.TLSFromFile(c.root, c.serverName), client.TokenFromFile(c.token)
	keys := certs.New(certs.Config{Authority: &certs.CA{Address: c.ca, TLS: tls, Token: token, ClusterID: c.clusterID}, Log: log})
	keys.Want(c.id())
	tunnels := &hbone.Dialer{Source: keys, Roots: keys, Grace: c.grace}
	g, err := gateway.New(gateway.Config{
		Workload: gateway.Workload{
			Name: c.workload(), Namespace: c.namespace, Principal: c.id().String(), App: c.workload(), Version: "latest",
			Cluster: c.clusterID, CanonicalName: c.workload(), CanonicalRevision: "latest",
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
	group.Go("readiness", func(context.Context) error { return listen(support, c.readiness, readiness(ctx, ready)) })
	group.Go("metrics", func(context.Context) error { return listen(support, c.metrics, metrics(registry)) })
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
		"service.name=" + c.workload(), "service.version=latest",
	}, ",")}}
}

func readiness(ending context.Context, r *lifecycle.Readiness) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz/ready", func(w http.ResponseWriter, _ *http.Request) {
		pending := r.Pending()
		if ending.Err() != nil {
			pending = append(pending, "draining")
		}
		if len(pending) > 0 {
			http.Error(w, "not ready, pending: "+strings.Join(pending, ", "), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return mux
}

func metrics(r *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	h := promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: true})
	mux.Handle("/metrics", h)
	mux.Handle("/stats/prometheus", h)
	return mux
}

// listen serves a handler until ctx ends.
func listen(ctx context.Context, addr string, h http.Handler) error {
	s := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	context.AfterFunc(ctx, func() { s.Close() })
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", addr, err)
	}
	return nil
}
