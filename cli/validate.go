package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/table"
)

// refusal is what is wrong at one place of a file, as -o json says it.
type refusal struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Path string `json:"path,omitempty"`
	What string `json:"what"`
	Hint string `json:"hint,omitempty"`
}

func newValidate(env Env) *cobra.Command {
	var files []string
	var recursive, lenient bool
	var output string
	c := &cobra.Command{
		Use: "validate (-f FILE... | FILE...)", Aliases: []string{"v"}, Short: "Check objects without a cluster",
		Long: "Check that every object is of a known kind, has only known fields of the right type, and means something.\n" +
			"The control plane, its webhook and `ambit local apply` make the same checks; `ambit analyze` looks for mistakes among\n" +
			"objects that are valid. The exit status is 0 if all are valid, 1 if not, 64 if the command line is wrong.",
		Example: "  ambit validate -f bookinfo.yaml\n  ambit validate -f deploy/ -R\n  cat policy.yaml | ambit validate -f -\n  helm template chart | ambit validate -f - --ignore-unknown",
		RunE: func(_ *cobra.Command, args []string) error {
			if !slices.Contains([]string{"", "text", "json", "yaml"}, output) {
				return usage("unknown output %q: want text, json or yaml", output)
			}
			all, err := sources(env, append(files, args...), recursive)
			if err != nil {
				return err
			}
			valid, bad := 0, kinds.Problems{}
			for _, s := range all {
				found, problems := read(s, lenient)
				bad = append(bad, problems...)
				for _, l := range found {
					p := l.Problems()
					if bad = append(bad, p...); len(p) == 0 {
						valid++
					}
				}
			}
			return tellRefusals(env, output, valid, bad)
		},
	}
	c.Flags().StringSliceVarP(&files, "filename", "f", nil, "file, directory or - to check; may be repeated")
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "enter the directories of a directory")
	c.Flags().BoolVar(&lenient, "ignore-unknown", false, "leave out objects of kinds that are not of the mesh")
	c.Flags().StringVarP(&output, "output", "o", "text", "text, json or yaml")
	return c
}

func tellRefusals(env Env, output string, valid int, bad kinds.Problems) error {
	switch {
	case output == "json" || output == "yaml":
		list := []refusal{}
		for _, p := range bad {
			list = append(list, refusal{p.File, p.Line, p.Path, p.What, p.Hint})
		}
		if err := encode(env.Out, output, list); err != nil {
			return err
		}
	case len(bad) > 0:
		for _, p := range bad {
			fmt.Fprintln(env.Err, table.Plain(p.Error()))
		}
	default:
		fmt.Fprintf(env.Out, "%d objects are valid\n", valid)
	}
	if len(bad) > 0 {
		return exitStatus(1)
	}
	return nil
}
