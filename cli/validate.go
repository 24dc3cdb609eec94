package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func newValidate(env Env) *cobra.Command {
	var files []string
	var recursive bool
	c := &cobra.Command{
		Use: "validate -f FILE", Short: "Check objects without a cluster", Args: cobra.NoArgs,
		Long:    "Check that every object is of a known kind, has only known fields of the right type, and means something.\nThe control plane, its webhook and `ambit local apply` make the same checks.",
		Example: "  ambit validate -f bookinfo.yaml\n  cat policy.yaml | ambit validate -f -",
		RunE: func(*cobra.Command, []string) error {
			all, err := sources(env, files, recursive)
			if err != nil {
				return err
			}
			n, bad := 0, error(nil)
			for _, s := range all {
				found, err := kinds.Decode(s.name, s.text)
				bad = errors.Join(bad, err)
				for _, l := range found {
					if p := l.Problems(); len(p) > 0 {
						bad = errors.Join(bad, p)
						continue
					}
					n++
				}
			}
			if bad != nil {
				fmt.Fprintln(env.Err, bad)
				return exitStatus(1)
			}
			fmt.Fprintf(env.Out, "%d objects are valid\n", n)
			return nil
		},
	}
	c.Flags().StringSliceVarP(&files, "filename", "f", nil, "file, directory or - to check")
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "enter the directories of a directory")
	return c
}
