// Command ambitd is the control plane of the mesh.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source/files"
	"github.com/ambit-mesh/ambit/mesh"
)

// version is set when the binary is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	if err := run(ctx, log, os.Args[1:]); err != nil {
		log.Error("control plane ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("ambitd", flag.ContinueOnError)
	objects := f.String("objects", "", "directory of YAML to read objects from")
	status := f.String("status", "", "directory to write the status of objects to")
	kept := f.String("kept", "", "directory to remember in what files of objects said before they broke (default: kept beside the status)")
	jwks := f.String("jwks", "", "file of the keys that sign ServiceAccount tokens")
	xds := f.String("xds", ":15012", "address for xDS and certificates, over TLS")
	monitor := f.String("monitor", ":15014", "address for metrics and the version")
	ready := f.String("ready", ":8080", "address for readiness")
	trustDomain := f.String("trust-domain", mesh.TrustDomain, "trust domain of the mesh")
	clusterID := f.String("cluster-id", mesh.ClusterID, "name of this cluster")
	distribute := f.Duration("root-distribute", 0, "how long a new root certificate is trusted before anything is signed under it (default 3m)")
	overlap := f.Duration("root-overlap", 0, "how long an old root certificate stays trusted after that (default 25h)")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *objects == "" || *jwks == "" || *status == "" {
		return errors.New("give --objects, --status and --jwks: reading from a Kubernetes API server is not part of this version")
	}
	if *kept == "" {
		*kept = filepath.Join(filepath.Dir(filepath.Clean(*status)), "kept")
	}
	src, err := files.Open(files.Config{Dir: *objects, Kept: *kept, Log: log})
	if err != nil {
		return err
	}
	c := control.Config{
		Objects: src, Writer: files.NewWriter(*objects), Status: files.NewWriter(*status), Callers: files.NewCallers(*jwks, mesh.TokenAudience),
		TrustDomain: *trustDomain, ClusterID: *clusterID, Version: version, Log: log,
		RootDistribute: *distribute, RootOverlap: *overlap,
	}
	for addr, to := range map[string]*net.Listener{*xds: &c.XDS, *monitor: &c.Monitor, *ready: &c.Ready} {
		if *to, err = net.Listen("tcp", addr); err != nil {
			return fmt.Errorf("listen on %s: %w", addr, err)
		}
	}
	return control.New(c).Run(ctx)
}
