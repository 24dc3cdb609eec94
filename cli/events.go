package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
)

func newEvents(s *scope) *cobra.Command {
	var all, watch bool
	var of string
	var types []string
	c := &cobra.Command{
		Use: "events", Short: "Show what happened, the newest last", Args: cobra.NoArgs,
		Example: "  ambit local events -A\n  ambit local events --for pod/web-0 --types Warning\n  ambit local events -w",
		RunE: func(c *cobra.Command, _ []string) error {
			keep, err := eventFilter(of, types)
			if err != nil {
				return err
			}
			return s.events(c.Context(), all, watch, keep)
		},
	}
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "events of every namespace")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on as more happens")
	c.Flags().StringVar(&of, "for", "", "only about KIND/NAME")
	c.Flags().StringSliceVar(&types, "types", nil, "only Normal or Warning")
	completeFlag(c, "types", words("Normal", "Warning"))
	return c
}

// eventFilter reads --for and --types.
func eventFilter(of string, types []string) (func(*corev1.Event) bool, error) {
	kind, name := "", ""
	if of != "" {
		word, n, ok := strings.Cut(of, "/")
		if !ok || n == "" {
			return nil, usage("--for %q: want KIND/NAME", of)
		}
		k, ok := kinds.Find(word)
		if !ok {
			return nil, unknownKind(word)
		}
		kind, name = k.Kind, n
	}
	return func(e *corev1.Event) bool {
		return (kind == "" || e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name) &&
			(len(types) == 0 || slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, e.Type) }))
	}, nil
}

func (s *scope) events(ctx context.Context, all, watch bool, keep func(*corev1.Event) bool) error {
	sel := client.Select{Namespace: s.namespace}
	if all {
		sel.Namespace = ""
	}
	k := kindNamed("events")
	objects, version, err := s.client().ListAt(ctx, k, sel)
	if err != nil {
		return err
	}
	objects = slices.DeleteFunc(objects, func(o kinds.Object) bool { return !keep(o.(*corev1.Event)) })
	slices.SortStableFunc(objects, func(a, b kinds.Object) int {
		return a.(*corev1.Event).LastTimestamp.Compare(b.(*corev1.Event).LastTimestamp.Time)
	})
	if len(objects) == 0 && !watch {
		if all {
			fmt.Fprintln(s.env.Err, "No events found.")
		} else {
			fmt.Fprintf(s.env.Err, "No events found in %s namespace.%s\n", s.namespace, s.hintNamespace())
		}
		return nil
	}
	var p table.Printer
	opt := table.Options{Now: time.Now(), Namespaces: all}
	if err := p.Write(s.env.Out, k, objects, opt); err != nil || !watch {
		return err
	}
	err = s.client().Watch(ctx, k, sel, version, func(c client.Change) error {
		if c.Type == "DELETED" || !keep(c.Object.(*corev1.Event)) {
			return nil
		}
		return p.Write(s.env.Out, k, []kinds.Object{c.Object}, table.Options{Now: time.Now(), Namespaces: all, NoHeaders: true})
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func newTop(s *scope) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "top [pods]", Short: "Show how much memory each container has", Args: cobra.MaximumNArgs(1),
		Long:    "Show the resident memory of each container, all of its processes together, and their share of it where several have the same pages.",
		Example: "  ambit local top -A",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 && !slices.Contains([]string{"pod", "pods", "po"}, args[0]) {
				return usage("top %s: only pods are known here", args[0])
			}
			found, err := s.client().Processes(c.Context())
			if err != nil {
				return err
			}
			rows := [][]string{{"POD", "CONTAINER", "RESIDENT", "SHARE"}}
			for _, p := range found {
				if ns, _, _ := strings.Cut(p.Pod, "/"); all || ns == s.namespace {
					rows = append(rows, []string{p.Pod, p.Container, mebibytes(p.RSS), mebibytes(p.PSS)})
				}
			}
			if len(rows) == 1 {
				fmt.Fprintf(s.env.Err, "No container runs in %s namespace.%s\n", s.namespace, s.hintNamespace())
				return nil
			}
			slices.SortFunc(rows[1:], func(a, b []string) int { return slices.Compare(a, b) })
			return table.Align(s.env.Out, rows)
		},
	}
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of every namespace, and the cluster's own")
	return c
}

func mebibytes(n int64) string {
	if n == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
