package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/analyze"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func newAnalyze(env Env) *cobra.Command {
	l := newLook(env)
	var output string
	var recursive, offline bool
	c := &cobra.Command{
		Use: "analyze [FILE...]", Short: "Find mistakes in objects that are valid each for itself",
		Long:    "Find mistakes among the objects of the mesh that runs, of files as if they were applied to it, or, with --use-kube=false,\nof files alone. The codes are those of Istio's analyzers; the exit status is 1 if there is an error.",
		Example: "  ambit analyze\n  ambit analyze --use-kube=false samples/bookinfo/networking/",
		RunE: func(c *cobra.Command, args []string) error {
			byName := map[string]kinds.Object{}
			add := func(o kinds.Object) { byName[kinds.Of(o).Kind+" "+o.GetNamespace()+"/"+o.GetName()] = o }
			if !offline {
				for _, k := range kinds.All() {
					objects, err := l.mesh().List(c.Context(), k, "", "")
					if err != nil {
						return fmt.Errorf("list %s: %w", k.Plural, err)
					}
					for _, o := range objects {
						add(o)
					}
				}
			}
			if offline && len(args) == 0 {
				return errors.New("name files to analyze, or leave --use-kube=false out to look at the mesh that runs")
			}
			var texts []source
			if len(args) > 0 {
				var err error
				if texts, err = sources(env, args, recursive); err != nil {
					return err
				}
			}
			for _, s := range texts {
				found, err := kinds.Decode(s.name, s.text)
				if err != nil {
					return err
				}
				for _, f := range found {
					if kinds.Of(f.Object).Namespaced && f.Object.GetNamespace() == "" {
						f.Object.SetNamespace(l.namespace)
					}
					add(f.Object)
				}
			}
			objects := make([]kinds.Object, 0, len(byName))
			for _, o := range byName {
				objects = append(objects, o)
			}
			return l.tell(analyze.Run(objects), output)
		},
	}
	l.flags(c)
	c.Flags().StringVarP(&l.namespace, "namespace", "n", "default", "namespace of objects in files that name none")
	c.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "enter the directories of a directory")
	kube := true
	c.Flags().BoolVarP(&kube, "use-kube", "k", true, "look at the mesh that runs")
	c.PreRun = func(*cobra.Command, []string) { offline = !kube }
	return c
}

func (l *look) tell(found []analyze.Message, output string) error {
	if output != "" {
		if err := encode(l.env.Out, output, append([]analyze.Message{}, found...)); err != nil {
			return err
		}
	}
	bad := false
	for _, m := range found {
		bad = bad || m.Level == "Error"
		if output == "" {
			fmt.Fprintln(l.env.Out, m)
		}
	}
	if len(found) == 0 && output == "" {
		fmt.Fprintln(l.env.Out, "✔ No validation issues found when analyzing the objects.")
	}
	if bad {
		return exitStatus(1)
	}
	return nil
}
