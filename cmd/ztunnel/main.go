// Command ztunnel is the L4 proxy of a node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/ambit-mesh/ambit/admin"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/linux/memory"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/xds/client"
	"github.com/ambit-mesh/ambit/ztunnel"
)

var version = "dev" // the build writes another

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "ztunnel:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	c, err := parse(args, os.Getenv, os.Stderr)
	if err != nil {
		return err
	}
	levels, err := telemetry.ParseLevels(c.levels)
	if err != nil {
		return fmt.Errorf("RUST_LOG: %w", err)
	}
	c.gc = limitMemory(os.Getenv)
	queue := telemetry.NewQueue(os.Stdout)
	handler := telemetry.NewHandler(queue, c.format, levels)
	log := slog.New(handler)
	queue.Lost = func(lines uint64) {
		log.Warn("lines of the log are lost, they came faster than they were read", "lines", lines)
	}
	writing, end := context.WithCancel(context.WithoutCancel(ctx)) // until the last line
	g := lifecycle.NewGroup(writing)
	g.Go("log", queue.Run)
	err = serve(ctx, c, handler, levels)
	end()
	return errors.Join(err, g.Wait())
}

// calmGC trades a little of the collector's time for a small heap: a node proxy is on every node, and mostly idle.
const calmGC = 50

// limitMemory says how much the heap may grow between collections while there is little to do; 0 if GOGC says it.
func limitMemory(getenv func(string) string) int {
	if getenv("GOGC") != "" {
		return 0
	}
	debug.SetGCPercent(calmGC)
	return calmGC
}

// readResolvers reads our own pod's resolvers: those of the pods that we serve are not in sight.
func readResolvers(c config) ([]netip.AddrPort, error) {
	if !c.dns {
		return nil, nil
	}
	f, err := os.Open(c.resolv)
	if err != nil {
		return nil, fmt.Errorf("resolvers: %w", err)
	}
	defer f.Close()
	servers, err := ztunnel.Resolvers(f)
	if err != nil {
		return nil, fmt.Errorf("resolvers in %s: %w", c.resolv, err)
	}
	return servers, nil
}

func serve(ctx context.Context, c config, handler *telemetry.Handler, levels *telemetry.Levels) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	log := slog.New(handler)
	ready := &lifecycle.Readiness{}
	metrics := telemetry.NewMetrics("ztunnel", c.version)
	tls, token := client.TLSFromFile(c.root, c.serverName), client.TokenFromFile(c.token)
	resolvers, err := readResolvers(c)
	if err != nil {
		return err
	}
	z, err := ztunnel.New(ztunnel.Config{
		Node: c.node, Pod: c.pod, Namespace: c.namespace, IP: c.ip, ClusterID: c.cluster, Network: c.network,
		TrustDomain: c.trustDomain, PreferredNamespace: c.prefer, NoDNS: !c.dns, OnDemand: c.onDemand, RegistryOnly: c.registryOnly, PolicyLogs: c.policyLogs, Resolvers: resolvers, ZDSSocket: c.zds, Grace: c.grace,
		RootFile: c.meshRoot, CRLFile: c.crl, PostQuantum: c.postQuantum, SameNode: c.sameNode,
		XDS:   client.Config{Address: c.xds, TLS: tls, Token: token},
		CA:    &certs.CA{Address: c.ca, TLS: tls, Token: token, ClusterID: c.cluster, Impersonate: true, TTL: c.certTTL},
		Ready: ready, Metrics: metrics, Access: telemetry.NewAccess(handler), Log: log,
	})
	if err != nil {
		return err
	}
	on, err := admin.Listen(ctx, c.admin, c.metrics, c.readiness)
	if err != nil {
		return err
	}
	pages := admin.Config{
		Name: "ztunnel", Ready: ready, Metrics: metrics.Handler(), Levels: levels,
		Dump: func(w io.Writer) error { return z.WriteDump(w, c.version) }, Quit: quit, Pages: z.Pages(),
	}
	context.AfterFunc(ctx, func() { ready.Add("draining") })
	log.Info("ztunnel started", "version", c.version, "node", c.node, "xds", c.xds)

	support, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g := lifecycle.NewGroup(support)
	g.Go("memory", func(ctx context.Context) error {
		return memory.Keep(ctx, c.gc, func(err error) { log.Warn("memory not given back", "error", err) })
	})
	g.Go("debug server", func(ctx context.Context) error { return admin.Run(ctx, pages, on) })
	g.Go("ztunnel", func(failed context.Context) error {
		defer end() // the debug server answers until the last connection has ended
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(failed, cancel)()
		return z.Run(ctx)
	})
	err = g.Wait()
	log.Info("ztunnel ended")
	return err
}
