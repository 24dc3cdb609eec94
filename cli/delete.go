package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
)

// deleteFlags are the options of delete.
type deleteFlags struct {
	files                         []string
	selector, dryRun, cascade     string
	all, ignore, wait, force, now bool
	everywhere, recursive         bool
	grace                         int
	timeout                       time.Duration
}

func newDelete(s *scope) *cobra.Command {
	var f deleteFlags
	c := &cobra.Command{
		Use: "delete (-f FILE | KIND NAME... | KIND -l SELECTOR | KIND --all)", Short: "Delete objects",
		Example: "  ambit local delete -f policy.yaml\n  ambit local delete pod,svc -l app=sleep\n  ambit local delete ns shop\n  ambit local delete pods --all --now",
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains([]string{"none", "client", "server"}, f.dryRun) {
				return usage("--dry-run=%s: want none, client or server", f.dryRun)
			}
			if f.now {
				f.grace = 1
			}
			if f.force {
				f.grace = 0
			}
			ts, err := s.doomed(c.Context(), args, f)
			if err != nil {
				return err
			}
			return s.deleteAll(c.Context(), ts, f)
		},
	}
	c.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "delete the objects of a file, directory or -")
	c.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "enter the directories of a directory")
	c.Flags().StringVarP(&f.selector, "selector", "l", "", "delete objects with these labels")
	c.Flags().BoolVar(&f.all, "all", false, "delete every object of the kind")
	c.Flags().BoolVarP(&f.everywhere, "all-namespaces", "A", false, "with -l or --all: of every namespace")
	c.Flags().BoolVar(&f.ignore, "ignore-not-found", false, "no error for objects that do not exist")
	c.Flags().BoolVar(&f.wait, "wait", true, "wait until the objects are gone")
	c.Flags().DurationVar(&f.timeout, "timeout", 2*time.Minute, "how long to wait")
	c.Flags().IntVar(&f.grace, "grace-period", -1, "seconds for pods to end; negative: their own")
	c.Flags().BoolVar(&f.now, "now", false, "give pods one second to end")
	c.Flags().BoolVar(&f.force, "force", false, "end pods at once")
	c.Flags().StringVar(&f.dryRun, "dry-run", "none", "client or server: only say what would be deleted")
	c.Flags().StringVar(&f.cascade, "cascade", "background", "accepted for kubectl's sake: what an object owns goes with it")
	completeFlag(c, "dry-run", words("none", "client", "server"))
	return c
}

// doomed finds what is to be deleted.
func (s *scope) doomed(ctx context.Context, args []string, f deleteFlags) ([]located, error) {
	if len(f.files) == 0 {
		given, err := targets(args)
		if err != nil {
			return nil, err
		}
		at := *s
		if f.everywhere {
			at.namespace = ""
			if slices.ContainsFunc(given, func(t target) bool { return t.name != "" }) {
				return nil, usage("-A goes with -l SELECTOR or --all: a name is of one namespace")
			}
		}
		return at.expand(ctx, given, f.selector, f.all)
	}
	srcs, err := sources(s.env, f.files, f.recursive)
	if err != nil {
		return nil, err
	}
	admits, err := labelsParse(f.selector)
	if err != nil {
		return nil, err
	}
	var ts []located
	for _, src := range srcs {
		found, err := kinds.Decode(src.name, src.text)
		if err != nil {
			return nil, err
		}
		for _, l := range found {
			ns := l.Object.GetNamespace()
			if ns == "" {
				ns = s.namespace
			}
			if admits(l.Object.GetLabels()) {
				ts = append(ts, located{target{kinds.Of(l.Object), l.Object.GetName()}, ns})
			}
		}
	}
	return ts, nil
}

// labelsParse reads a label selector.
func labelsParse(selector string) (func(map[string]string) bool, error) {
	sel, err := labels.Parse(selector)
	if err != nil {
		return nil, usage("-l %q: %w", selector, err)
	}
	return func(l map[string]string) bool { return sel.Matches(labels.Set(l)) }, nil
}

func (s *scope) deleteAll(ctx context.Context, ts []located, f deleteFlags) error {
	api := s.client()
	if len(ts) == 0 {
		fmt.Fprintln(s.env.Out, "No resources found")
	}
	var failed []error
	was := make([]types.UID, len(ts)) // another may take the name at once, as that of a set's pod
	for i, t := range ts {
		o, err := api.Get(ctx, t.kind, t.namespace, t.name)
		if err == nil {
			was[i] = o.GetUID()
		}
		if err == nil && f.dryRun == "none" {
			err = api.Delete(ctx, t.kind, t.namespace, t.name, f.grace)
		}
		if client.NotFound(err) && f.ignore {
			continue
		}
		if err != nil {
			failed = append(failed, hinted(ctx, api, err, t.kind, t.namespace, t.name))
			continue
		}
		word := strings.ToLower(t.kind.Kind)
		if t.kind.Group != "" {
			word += "." + t.kind.Group
		}
		fmt.Fprintf(s.env.Out, "%s %q deleted%s\n", word, t.name, trial(f.dryRun))
	}
	if !f.wait || f.dryRun != "none" || len(failed) > 0 {
		return errors.Join(failed...)
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	for i, t := range ts {
		gone := func(o kinds.Object) (bool, string) { return o == nil || o.GetUID() != was[i], "it still exists" }
		err := api.Until(ctx, t.kind, t.namespace, t.name, gone)
		if err != nil {
			return err
		}
	}
	return nil
}
