package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/demo"
	"github.com/ambit-mesh/ambit/local"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/manifests"
)

// preflight refuses to start what this machine cannot run, and says how to allow it.
func preflight(ctx context.Context, env Env) error {
	problems := local.Preflight(ctx)
	if len(problems) == 0 {
		return nil
	}
	fmt.Fprintln(env.Err, "This machine cannot run a local cluster yet:")
	for _, p := range problems {
		fmt.Fprintf(env.Err, "  ✘ %s\n", p)
	}
	return exitStatus(1)
}

func newUp(s *scope) *cobra.Command {
	var nodes, port int
	var family string
	var bare, foreground bool
	c := &cobra.Command{
		Use: "up", Short: "Start a cluster with an ambient mesh and leave it running", Args: cobra.NoArgs,
		Example: "  ambit local up\n  ambit local apply -f samples/bookinfo/platform/kube/bookinfo.yaml\n  ambit local label namespace default istio.io/dataplane-mode=ambient",
		RunE: func(c *cobra.Command, _ []string) error {
			if nodes < 1 {
				return fmt.Errorf("--nodes %d: a local cluster has 1 to 20", nodes)
			}
			state, err := filepath.Abs(s.state)
			if err != nil {
				return err
			}
			if foreground {
				return s.hold(c.Context(), local.Config{State: state, Nodes: nodes, IngressPort: port, IPFamily: family})
			}
			if err := preflight(c.Context(), s.env); err != nil {
				return err
			}
			args := []string{"local", "up", "--foreground", "--state", state, "--nodes", strconv.Itoa(nodes), "--ingress-port", strconv.Itoa(port), "--ip-family", family}
			if err := local.Spawn(c.Context(), state, args); err != nil {
				return err
			}
			fmt.Fprintf(s.env.Out, "✔ %d nodes ready\n", nodes)
			if !bare {
				done := func(format string, a ...any) { fmt.Fprintf(s.env.Out, "✔ "+format+"\n", a...) }
				if err := demo.Install(c.Context(), client.New(state), manifests.Options{}, func(string) {}, done); err != nil {
					return fmt.Errorf("%w\nThe cluster goes on; look with `ambit local get pods -A`, end it with `ambit local down`", err)
				}
			}
			r := local.Running(state)
			fmt.Fprintf(s.env.Out, "\nThe ingress gateway is at %s on this machine.\nObjects are files in %s.\n", r.Ingress, filepath.Join(state, "objects"))
			return nil
		},
	}
	c.Flags().IntVar(&nodes, "nodes", 3, "number of nodes, the first of them the control plane")
	c.Flags().IntVar(&port, "ingress-port", 0, "port of 127.0.0.1 that leads to the ingress gateway; 0: 8080 if it is free")
	c.Flags().StringVar(&family, "ip-family", "ipv4", "addresses of nodes, pods and services: ipv4, ipv6 or dual")
	c.Flags().BoolVar(&bare, "bare", false, "install no mesh")
	c.Flags().BoolVar(&foreground, "foreground", false, "hold the cluster in this process, without a mesh")
	return c
}

// hold is the process that a background cluster lives in.
func (s *scope) hold(ctx context.Context, conf local.Config) error {
	bin, err := binaries()
	if err != nil {
		return err
	}
	conf.Keep, conf.Bin = true, bin
	cl, err := local.Up(ctx, conf)
	if err != nil {
		return err
	}
	return local.Hold(ctx, conf.State, cl)
}

func newDown(s *scope) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End the cluster and remove everything of it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			state, err := filepath.Abs(s.state)
			if err != nil {
				return err
			}
			if err := local.Down(c.Context(), state); err != nil {
				return err
			}
			fmt.Fprintln(s.env.Out, "The local cluster is gone.")
			return nil
		},
	}
}

func newStatus(s *scope) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Tell whether a cluster runs, and how it is", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			state, err := filepath.Abs(s.state)
			if err != nil {
				return err
			}
			r := local.Running(state)
			if r.PID == 0 {
				fmt.Fprintln(s.env.Out, "No local cluster is running. Start one with: ambit local up")
				return exitStatus(1)
			}
			fmt.Fprintf(s.env.Out, "running    process %d\nstate      %s\ningress    %s\n", r.PID, state, r.Ingress)
			ctx, cancel := context.WithTimeout(c.Context(), 5*time.Second)
			defer cancel()
			problems, err := s.client().Problems(ctx)
			if err != nil {
				return err
			}
			for _, p := range problems {
				fmt.Fprintf(s.env.Out, "refused    %s\n", strings.ReplaceAll(p, "\n", "\n           "))
			}
			fmt.Fprintln(s.env.Out)
			return s.get(ctx, mustTargets("nodes"), getFlags{})
		},
	}
}

func mustTargets(words ...string) []target {
	ts, err := targets(words)
	if err != nil {
		panic(err) // kinds of our own
	}
	return ts
}
