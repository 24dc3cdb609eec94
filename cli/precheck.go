package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/install"
	"github.com/ambit-mesh/ambit/cli/internal/precheck"
	"github.com/ambit-mesh/ambit/local"
)

func newPrecheck(env Env) *cobra.Command {
	k := &toKubernetes{env: env}
	here := false
	c := &cobra.Command{
		Use: "precheck", Short: "Tell whether a mesh will work on a cluster, or a local cluster on this machine", Args: cobra.NoArgs,
		Long: "Look, without changing anything, for what of a mesh will not work on a Kubernetes cluster, say why and what to do: versions, your\n" +
			"rights, what others have installed, the network plugin and its settings, nodes, policies. Give it the settings of the installation.\n\n" +
			"With --local, or where no cluster is named: try in a throw-away sandbox everything that a local cluster needs of this machine.\n\n" +
			"The exit status is 1 if something will not work (✘); what only may not work (!) leaves it 0.",
		Example: "  ambit x precheck\n  ambit x precheck --set profile=ambient --context staging\n  ambit x precheck --local",
		RunE: func(c *cobra.Command, _ []string) error {
			if !here {
				cluster, err := install.Connect(k.kubeconfig, k.name)
				if !errors.Is(err, install.ErrNoCluster) {
					return k.precheck(c.Context(), cluster, err)
				}
			}
			return machine(c.Context(), env)
		},
	}
	k.connecting(c)
	k.choosing(c)
	c.Flags().BoolVar(&here, "local", false, "look at this machine, for a local cluster")
	c.MarkFlagsMutuallyExclusive("local", "kubeconfig")
	c.MarkFlagsMutuallyExclusive("local", "context")
	return c
}

func machine(ctx context.Context, env Env) error {
	missing := local.Preflight(ctx)
	p := newPaint(env.Out)
	for _, m := range missing {
		fmt.Fprintf(env.Out, "%s %s\n", p.bad("✘"), m)
	}
	if len(missing) > 0 {
		return exitStatus(1)
	}
	fmt.Fprintf(env.Out, "%s This machine can run a local cluster: ambit local up\n", p.good("✔"))
	return nil
}

func (k *toKubernetes) precheck(ctx context.Context, cluster *install.Cluster, err error) error {
	if err != nil {
		return err
	}
	if len(k.set)+len(k.files) == 0 {
		k.set = []string{"profile=ambient"}
	}
	p, _, err := k.plan(ctx, cluster)
	if err != nil {
		return err
	}
	facts, err := (&install.Installer{Cluster: cluster}).Facts(ctx, p)
	if err != nil {
		return err
	}
	out, paint := k.env.Out, newPaint(k.env.Out)
	fmt.Fprintf(out, "Cluster %s (%s): Kubernetes %s, %d nodes; profile %s\n", cluster.Context, cluster.Server, facts.Version, len(facts.Nodes), p.Profile)
	worst := precheck.Info
	for _, f := range precheck.Check(facts) {
		worst = max(worst, f.Level)
		mark := map[precheck.Level]string{precheck.Info: "-", precheck.Risk: paint.warn("!"), precheck.Fails: paint.bad("✘")}[f.Level]
		fmt.Fprintf(out, "%s %s\n    %s\n    → %s\n", mark, indented(f.What), indented(f.Why), indented(f.Do))
	}
	switch worst {
	case precheck.Fails:
		return exitStatus(1)
	case precheck.Risk:
		fmt.Fprintf(out, "%s The mesh can be installed; what is marked ! may not work for everything.\n", paint.good("✔"))
	default:
		fmt.Fprintf(out, "%s The mesh will work here: ambit install --set profile=%s\n", paint.good("✔"), p.Profile)
	}
	return nil
}

func indented(s string) string { return strings.ReplaceAll(s, "\n", "\n    ") }
