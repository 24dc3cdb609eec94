// Command ambitd is the control plane of the mesh.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source/meshconfig"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/mesh"
)

// memory is how much garbage there may be for what is held, in percent.
const memory = 50

// version is set when the binary is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(memory) // what it holds changes little of at a time
	}
	log := logger(os.Getenv("LOG_LEVEL"), os.Getenv("LOG_FORMAT"))
	if err := run(ctx, log, os.Args[1:], os.Getenv); err != nil {
		log.Error("control plane ended", "error", err)
		os.Exit(1)
	}
}

// logger writes lines of text, or of JSON where that is wanted.
func logger(level, format string) *slog.Logger {
	o := &slog.HandlerOptions{}
	var l slog.Level
	unknown := level != "" && l.UnmarshalText([]byte(level)) != nil
	o.Level = l
	var h slog.Handler = slog.NewTextHandler(os.Stdout, o)
	if format == "json" {
		h = slog.NewJSONHandler(os.Stdout, o)
	}
	log := slog.New(h)
	if unknown {
		log.Warn("LOG_LEVEL is none of debug, info, warn, error; it is info", "is", level)
	}
	return log
}

// options are what a person may say.
type options struct {
	objects, status, kept, jwks                string // of a directory
	kubeconfig                                 string
	pod, podUID, namespace                     string // of this process in a cluster
	meshConfig, trustDomain, domain, clusterID string
	revision                                   string
	xds, monitor, ready, webhook               string
	distribute, overlap                        time.Duration
}

func run(ctx context.Context, log *slog.Logger, args []string, env func(string) string) error {
	o := options{pod: env("POD_NAME"), podUID: env("POD_UID"), namespace: cmp.Or(env("POD_NAMESPACE"), mesh.SystemNamespace), revision: env("REVISION")}
	f := flag.NewFlagSet("ambitd", flag.ContinueOnError)
	f.StringVar(&o.objects, "objects", "", "directory of YAML to read objects from, in place of a Kubernetes API server")
	f.StringVar(&o.status, "status", "", "with --objects: directory to write the status of objects to")
	f.StringVar(&o.kept, "kept", "", "with --objects: directory to remember in what files said before they broke (default: kept beside the status)")
	f.StringVar(&o.jwks, "jwks", "", "with --objects: file of the keys that sign ServiceAccount tokens")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "file that says how to reach the API server (default: as the pod's service account)")
	f.StringVar(&o.meshConfig, "mesh-config", "", "file with Istio's MeshConfig, as the ConfigMap istio has it under mesh")
	f.StringVar(&o.xds, "xds", ":15012", "address for xDS and certificates, over TLS")
	f.StringVar(&o.monitor, "monitor", ":15014", "address for metrics and the version")
	f.StringVar(&o.ready, "ready", ":8080", "address for readiness")
	f.StringVar(&o.webhook, "webhook", ":15017", "with an API server: address where it may ask about objects, over TLS; empty for nowhere")
	f.StringVar(&o.trustDomain, "trust-domain", "", "trust domain of the mesh (default: that of the mesh configuration, else "+mesh.TrustDomain+")")
	f.StringVar(&o.domain, "cluster-domain", mesh.ClusterDomain, "domain of the names of Services")
	f.StringVar(&o.clusterID, "cluster-id", cmp.Or(env("CLUSTER_ID"), mesh.ClusterID), "name of this cluster")
	f.DurationVar(&o.distribute, "root-distribute", 0, "how long a new root certificate is trusted before anything is signed under it (default 3m)")
	f.DurationVar(&o.overlap, "root-overlap", 0, "how long an old root certificate stays trusted after that (default 25h)")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is no flag", f.Arg(0))
	}
	return o.run(ctx, log)
}

func (o options) run(ctx context.Context, log *slog.Logger) error {
	c := control.Config{
		TrustDomain: o.trustDomain, ClusterDomain: o.domain, ClusterID: o.clusterID, Version: version, Log: log,
		RootDistribute: o.distribute, RootOverlap: o.overlap,
	}
	if o.meshConfig != "" {
		m, err := meshconfig.Open(o.meshConfig, log)
		if err != nil {
			return err
		}
		c.Mesh, c.RootNamespace = m, m.Config().RootNamespace
		c.TrustDomain = cmp.Or(c.TrustDomain, m.Config().TrustDomain)
	}
	var err error
	if o.objects != "" {
		err = o.files(&c)
	} else {
		err = o.kubernetes(&c)
	}
	if err != nil {
		return err
	}
	type listener struct {
		addr string
		to   *net.Listener
	}
	listeners := []listener{{o.xds, &c.XDS}, {o.monitor, &c.Monitor}, {o.ready, &c.Ready}}
	if c.Webhook != nil {
		listeners = append(listeners, listener{o.webhook, &c.Validation})
	}
	for _, l := range listeners {
		if *l.to, err = net.Listen("tcp", l.addr); err != nil {
			return fmt.Errorf("listen on %s: %w", l.addr, err)
		}
	}
	g := lifecycle.NewGroup(ctx)
	if c.Mesh != nil {
		g.Go("mesh configuration", c.Mesh.Run)
	}
	g.Go("control plane", control.New(c).Run)
	return g.Wait()
}
