package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/install"
	"github.com/ambit-mesh/ambit/manifests"
)

func newUninstall(env Env) *cobra.Command {
	k := &toKubernetes{env: env}
	purge := false
	c := &cobra.Command{
		Use: "uninstall", Short: "Take the mesh out of a Kubernetes cluster", Args: cobra.NoArgs,
		Long: "Take the mesh out of a Kubernetes cluster: pods go on, with their traffic as it was before the mesh.\n\n" +
			"Custom resource definitions, and with them your policies and routes, and the key of the mesh's certificate authority go only with\n" +
			"--purge. What others have made stays either way.",
		Example: "  ambit uninstall -y\n  ambit uninstall --purge",
		RunE: func(c *cobra.Command, _ []string) error {
			return k.uninstall(c.Context(), purge)
		},
	}
	k.connecting(c)
	k.waiting(c)
	c.Flags().BoolVar(&purge, "purge", false, "custom resource definitions with all objects of them, and the certificate authority's key, too")
	return c
}

func (k *toKubernetes) uninstall(ctx context.Context, purge bool) error {
	cluster, err := install.Connect(k.kubeconfig, k.name)
	if err != nil {
		return err
	}
	report := k.report()
	i := &install.Installer{Cluster: cluster, Report: report, Within: k.within}
	r, err := i.Removal(ctx, purge)
	if err != nil {
		return err
	}
	out := k.env.Out
	for _, s := range r.Stays {
		fmt.Fprintf(out, "stays: %s\n", s)
	}
	if r.Empty() {
		fmt.Fprintf(out, "Nothing of ambit is on cluster %s (%s).\n", cluster.Context, cluster.Server)
		return nil
	}
	lost := 0
	for _, d := range r.Definitions {
		lost += d.Objects
	}
	fmt.Fprintf(out, "Removes %d objects of ambit from cluster %s (%s)", len(r.Objects)+len(r.Written), cluster.Context, cluster.Server)
	if purge {
		fmt.Fprintf(out, ", and %d definitions with %d objects of yours:", len(r.Definitions), lost)
		for _, d := range r.Definitions {
			if d.Objects > 0 {
				fmt.Fprintf(out, "\n  %d %s", d.Objects, d.Name)
			}
		}
	}
	fmt.Fprintln(out)
	if !k.yes && !k.ask("Proceed? (y/N) ") {
		return fmt.Errorf("uninstall: not confirmed (-y does not ask)")
	}
	err = i.Uninstall(ctx, r)
	report.End()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s Uninstall complete\n", newPaint(out).good("✔"))
	return nil
}

func newManifest(env Env) *cobra.Command {
	c := group(&cobra.Command{Use: "manifest", Short: "Print what an installation would apply"})
	k := &toKubernetes{env: env}
	generate := &cobra.Command{
		Use: "generate", Short: "Print the YAML that install would apply", Args: cobra.NoArgs,
		Example: "  ambit manifest generate --set profile=ambient > ambit.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			p, _, err := k.plan(c.Context(), nil)
			if err != nil {
				return err
			}
			return install.Write(env.Out, p.Objects())
		},
	}
	k.choosing(generate)
	c.AddCommand(generate)
	return c
}

func newProfile(env Env) *cobra.Command {
	c := group(&cobra.Command{Use: "profile", Short: "List the profiles of an installation, or print one"})
	c.AddCommand(&cobra.Command{
		Use: "list", Short: "List the profiles", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			for _, name := range manifests.Profiles() {
				fmt.Fprintln(env.Out, name)
			}
			return nil
		},
	}, &cobra.Command{
		Use: "dump NAME", Short: "Print a profile", Args: cobra.ExactArgs(1), Example: "  ambit profile dump ambient",
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := manifests.Profile(args[0])
			if err != nil {
				return usageError{err}
			}
			_, err = env.Out.Write(b)
			return err
		},
	})
	return c
}
