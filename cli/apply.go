package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
)

// applyFlags are the options of apply.
type applyFlags struct {
	files                    []string
	recursive, prune, all    bool
	dryRun, selector, output string
	server, conflicts        bool
	manager                  string
}

func newApply(s *scope) *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Create or change objects", Args: cobra.NoArgs,
		Long: "Create the objects of a file, or change them to what it says. A file with an error changes nothing.\n\n" +
			"With --prune, objects that were applied before, have the labels of -l (or, with --all, whatever labels) and are in none of\n" +
			"the files are deleted.",
		Example: "  ambit local apply -f samples/bookinfo/platform/kube/bookinfo.yaml\n  cat policy.yaml | ambit local apply -f -\n" +
			"  ambit local apply -f deploy/ --prune -l app=shop",
		RunE: func(c *cobra.Command, _ []string) error { return s.apply(c.Context(), f) },
	}
	c.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "file, directory or - to apply")
	c.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "enter the directories of a directory")
	c.Flags().StringVar(&f.dryRun, "dry-run", "none", "client or server: check and say what would happen")
	c.Flags().BoolVar(&f.prune, "prune", false, "delete what was applied before and is in no file any more")
	c.Flags().BoolVar(&f.all, "all", false, "with --prune: objects of whatever labels")
	c.Flags().StringVarP(&f.selector, "selector", "l", "", "only objects with these labels")
	c.Flags().StringVarP(&f.output, "output", "o", "", "name, yaml or json of the objects instead of what became of them")
	c.Flags().BoolVar(&f.server, "server-side", false, "as always here: the server merges")
	c.Flags().BoolVar(&f.conflicts, "force-conflicts", false, "accepted for kubectl's sake: there is one author here")
	c.Flags().StringVar(&f.manager, "field-manager", "", "accepted for kubectl's sake")
	completeFlag(c, "dry-run", words("none", "client", "server"))
	completeFlag(c, "output", words("name", "yaml", "json"))
	return c
}

func (s *scope) apply(ctx context.Context, f applyFlags) error {
	switch {
	case !slices.Contains([]string{"none", "client", "server"}, f.dryRun):
		return usage("--dry-run=%s: want none, client or server", f.dryRun)
	case f.prune && f.selector == "" && !f.all:
		return usage("--prune deletes: say of which objects by -l SELECTOR, or --all")
	case !slices.Contains([]string{"", "name", "yaml", "json"}, f.output):
		return usage("unknown output %q: want name, yaml or json", f.output)
	}
	all, err := sources(s.env, f.files, f.recursive)
	if err != nil {
		return err
	}
	var done []client.Result
	for _, src := range all {
		text, err := s.only(src, f.selector)
		if err != nil {
			return err
		}
		if text == nil {
			continue
		}
		results, err := s.client().Apply(ctx, src.name, s.namespace, f.dryRun != "none", text)
		if err != nil {
			return err
		}
		if f.output == "" {
			for _, r := range results {
				fmt.Fprintf(s.env.Out, "%s %s\n", named(r.Kind, r.Group, r.Name), r.Result+trial(f.dryRun))
			}
		}
		s.warn(results)
		done = append(done, results...)
	}
	if f.output != "" {
		if err := s.showApplied(ctx, done, f.output); err != nil {
			return err
		}
	}
	if f.prune {
		return s.prune(ctx, done, f)
	}
	return nil
}

// warn tells what the cluster keeps and does not act on.
func (s *scope) warn(results []client.Result) {
	for _, r := range results {
		for _, text := range r.Idle {
			if r.Result != "unchanged" {
				fmt.Fprintf(s.env.Err, "Warning: %s\n", text)
			}
		}
	}
}

// trial ends the line of what was only tried.
func trial(dryRun string) string {
	return map[string]string{"client": " (dry run)", "server": " (server dry run)"}[dryRun]
}

// only is the part of a text that a selector admits; nil if it is nothing.
func (s *scope) only(src source, selector string) ([]byte, error) {
	if selector == "" {
		return src.text, nil
	}
	found, err := kinds.Decode(src.name, src.text)
	if err != nil {
		return nil, err
	}
	admits, err := labelsParse(selector)
	if err != nil {
		return nil, err
	}
	var text []byte
	for _, l := range found {
		if !admits(l.Object.GetLabels()) {
			continue
		}
		one, err := kinds.Encode(l.Object)
		if err != nil {
			return nil, err
		}
		text = append(append(text, "---\n"...), one...)
	}
	return text, nil
}

func (s *scope) showApplied(ctx context.Context, done []client.Result, output string) error {
	var groups []found
	for _, r := range done {
		k, ok := kinds.Find(r.Kind + "." + r.Group)
		if r.Group == "" {
			k, ok = kinds.Find(r.Kind)
		}
		if !ok {
			return fmt.Errorf("the server applied a kind %s that this command does not know", r.Kind)
		}
		o, err := s.client().Get(ctx, k, r.Namespace, r.Name)
		if err != nil {
			return err
		}
		groups = append(groups, found{kind: k, objects: []kinds.Object{o}})
	}
	var b strings.Builder
	if err := (&printer{getFlags: getFlags{output: output}}).show(&b, groups, len(groups) == 1); err != nil {
		return err
	}
	_, err := io.WriteString(s.env.Out, b.String())
	return err
}

// pruned are the kinds that --prune deletes of; never namespaces, nor what the cluster makes itself.
func pruned(k kinds.Kind) bool {
	return k.Namespaced && !slices.Contains([]string{"Event", "Endpoints", "EndpointSlice", "ReplicaSet", "Pod"}, k.Kind)
}

// prune deletes what was applied once and is not among what was applied now.
func (s *scope) prune(ctx context.Context, done []client.Result, f applyFlags) error {
	now, namespaces := map[string]bool{}, map[string]bool{}
	for _, r := range done {
		now[r.Kind+"."+r.Group+" "+r.Namespace+"/"+r.Name] = true
		if r.Namespace != "" {
			namespaces[r.Namespace] = true
		}
	}
	var failed []error
	for ns := range namespaces {
		for _, k := range kinds.All() {
			if !pruned(k) {
				continue
			}
			objects, err := s.client().List(ctx, k, ns, f.selector)
			if err != nil {
				return err
			}
			for _, o := range objects {
				_, applied := o.GetAnnotations()[corev1.LastAppliedConfigAnnotation]
				if !applied || now[k.Kind+"."+k.Group+" "+ns+"/"+o.GetName()] {
					continue
				}
				if f.dryRun == "none" {
					if err := s.client().Delete(ctx, k, ns, o.GetName(), -1); err != nil {
						failed = append(failed, err)
						continue
					}
				}
				fmt.Fprintf(s.env.Out, "%s pruned%s\n", named(k.Kind, k.Group, o.GetName()), trial(f.dryRun))
			}
		}
	}
	return errors.Join(failed...)
}
