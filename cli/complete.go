package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// kindsAndNames completes KIND NAME and KIND/NAME from the cluster that runs; without one there are kinds alone.
func (s *scope) kindsAndNames(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if kind, _, ok := strings.Cut(word, "/"); ok {
		return s.names(c.Context(), kind, kind+"/"), cobra.ShellCompDirectiveNoFileComp
	}
	if len(args) > 0 {
		if strings.Contains(args[0], "/") {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return s.names(c.Context(), args[0], ""), cobra.ShellCompDirectiveNoFileComp
	}
	var all []cobra.Completion
	for _, k := range kinds.All() {
		all = append(all, k.Plural)
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// pods completes POD and KIND/NAME.
func (s *scope) pods(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if kind, _, ok := strings.Cut(word, "/"); ok {
		return s.names(c.Context(), kind, kind+"/"), cobra.ShellCompDirectiveNoFileComp
	}
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return append(s.names(c.Context(), "pods", ""), s.names(c.Context(), "deploy", "deploy/")...), cobra.ShellCompDirectiveNoFileComp
}

// names are those of a kind in the namespace; none if they cannot be had quickly.
func (s *scope) names(ctx context.Context, kind, prefix string) []cobra.Completion {
	k, ok := kinds.Find(kind)
	if !ok {
		return nil
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	objects, err := s.client().List(ctx, k, s.namespace, "")
	if err != nil {
		return nil // a shell that completes has no place for errors
	}
	var all []cobra.Completion
	for _, o := range objects {
		all = append(all, prefix+o.GetName())
	}
	return all
}

// namespaces completes -n.
func (s *scope) namespaces(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.names(c.Context(), "namespaces", ""), cobra.ShellCompDirectiveNoFileComp
}
