package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// completer is how cobra asks what a word may become.
type completer func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective)

// completeTime bounds how long a shell waits for names.
const completeTime = time.Second

// listed are the objects of a kind; none if they cannot be had quickly: a shell that completes has no place for errors.
func listed(ctx context.Context, r lister, kind, namespace string) []kinds.Object {
	k, ok := kinds.Find(kind)
	if !ok {
		return nil
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	objects, err := r.List(ctx, k, namespace, "")
	if err != nil {
		return nil
	}
	return objects
}

// words offers the same words always.
func words(all ...string) completer {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag offers words for a flag, which must be there.
func completeFlag(c *cobra.Command, flag string, f completer) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.CompletionFunc(f)); err != nil {
		panic(err)
	}
}

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

// names are those of a kind in the namespace.
func (s *scope) names(ctx context.Context, kind, prefix string) []cobra.Completion {
	var all []cobra.Completion
	for _, o := range listed(ctx, s.client(), kind, s.namespace) {
		all = append(all, prefix+o.GetName())
	}
	return all
}

// namespaces completes -n.
func (s *scope) namespaces(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.names(c.Context(), "namespaces", ""), cobra.ShellCompDirectiveNoFileComp
}

// objects offers the names of a kind, of all namespaces.
func (l *look) objects(kind string) completer {
	return func(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var all []cobra.Completion
		for _, o := range listed(c.Context(), l.mesh(), kind, "") {
			all = append(all, o.GetName())
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

func (l *look) completeNamespace(c *cobra.Command) {
	completeFlag(c, "namespace", l.objects("namespaces"))
}

// somePods offers POD.NAMESPACE of those that keep admits, for the first argument.
func (l *look) somePods(keep func(*corev1.Pod) bool) completer {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var all []cobra.Completion
		if len(args) > 0 {
			return all, cobra.ShellCompDirectiveNoFileComp
		}
		for _, o := range listed(c.Context(), l.mesh(), "pods", "") {
			if p, ok := o.(*corev1.Pod); ok && keep(p) {
				all = append(all, cobra.CompletionWithDesc(p.Name+"."+p.Namespace, "on "+p.Spec.NodeName))
			}
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeEnds offers what a connection may come from, then what it may go to.
func (l *look) completeEnds(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var all []cobra.Completion
	local := func(o kinds.Object) string {
		if o.GetNamespace() == l.namespace {
			return o.GetName()
		}
		return o.GetName() + "." + o.GetNamespace()
	}
	switch len(args) {
	case 0:
		all = append(all, "gateway", "outside")
		for _, o := range listed(c.Context(), l.mesh(), "deployments", "") {
			all = append(all, "deploy/"+local(o))
		}
		for _, o := range listed(c.Context(), l.mesh(), "pods", l.namespace) {
			all = append(all, o.GetName())
		}
	case 1:
		for _, o := range listed(c.Context(), l.mesh(), "services", "") {
			s, ok := o.(*corev1.Service)
			if !ok {
				continue
			}
			for _, p := range s.Spec.Ports {
				all = append(all, fmt.Sprintf("%s:%d", local(s), p.Port))
			}
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}
