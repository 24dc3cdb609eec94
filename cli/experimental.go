package cli

import (
	"github.com/spf13/cobra"
)

func newExperimental(env Env) *cobra.Command {
	c := group(&cobra.Command{
		Use: "x", Aliases: []string{"experimental"}, Short: "Describe pods and services, list policies in force, check a cluster or the machine",
	})
	c.AddCommand(newMeshDescribe(env), newAuthz(env), newPrecheck(env))
	return c
}
