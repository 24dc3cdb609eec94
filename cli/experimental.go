package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/local"
)

func newExperimental(env Env) *cobra.Command {
	c := group(&cobra.Command{
		Use: "x", Aliases: []string{"experimental"}, Short: "Describe pods and services, list policies in force, check the machine",
	})
	c.AddCommand(newMeshDescribe(env), newAuthz(env), newPrecheck(env))
	return c
}

func newPrecheck(env Env) *cobra.Command {
	return &cobra.Command{
		Use: "precheck", Short: "Tell whether this machine can run a local cluster", Args: cobra.NoArgs,
		Long: "Try, in a throw-away sandbox, everything that a local cluster needs of this machine: namespaces, mounts, bridges, nftables.\nWhat is missing is told with how to allow it. The exit status is 1 if something is missing.",
		RunE: func(c *cobra.Command, _ []string) error {
			missing := local.Preflight(c.Context())
			p := newPaint(env.Out)
			for _, m := range missing {
				fmt.Fprintf(env.Out, "%s %s\n", p.bad("✘"), m)
			}
			if len(missing) > 0 {
				return exitStatus(1)
			}
			fmt.Fprintf(env.Out, "%s This machine can run a local cluster: ambit local up\n", p.good("✔"))
			return nil
		},
	}
}
