package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/zdump"
	"github.com/ambit-mesh/ambit/local/table"
)

func newAuthz(env Env) *cobra.Command {
	c := group(&cobra.Command{Use: "authz", Short: "Inspect authorization policies"})
	l := newLook(env)
	var file string
	check := &cobra.Command{
		Use: "check POD[.NAMESPACE]", Short: "List the policies that a pod's ztunnel enforces for it", Args: cobra.ExactArgs(1),
		Long: "List the policies in force for a pod, as its ztunnel has them: those of the whole mesh, of its namespace, and those whose\n" +
			"selector it matches. `ambit explain` tells which of them decides about a connection.",
		Example: "  ambit x authz check deploy/productpage-v1\n  ambit x authz check productpage-v1-74bc.default -f config_dump.json",
		RunE: func(c *cobra.Command, args []string) error {
			var d *zdump.Dump
			var name, namespace string
			if file != "" {
				var err error
				if d, err = dumpOf(env, file); err != nil {
					return err
				}
				name, namespace = l.split(args[0])
			} else {
				pod, err := l.onePod(c.Context(), args[0])
				if err != nil {
					return err
				}
				name, namespace = pod.Name, pod.Namespace
				if !captured(pod) && native(pod) == "" {
					fmt.Fprintf(env.Err, "Warning: nobody enforces policies for %s.%s: %s\n", name, namespace, l.uncaptured(c.Context(), pod))
				}
				if _, d, err = l.servant(c.Context(), pod); err != nil {
					return err
				}
			}
			rows, err := policiesOf(d, namespace, name)
			if err != nil {
				return err
			}
			return table.Align(env.Out, rows)
		},
	}
	l.flags(check)
	check.Flags().StringVarP(&file, "file", "f", "", "a /config_dump instead of a running ztunnel; - is standard input")
	check.Flags().StringVarP(&l.namespace, "namespace", "n", "default", "namespace of the name")
	l.completeNamespace(check)
	check.ValidArgsFunction = cobra.CompletionFunc(l.somePods(captured))
	c.AddCommand(check)
	return c
}

// policiesOf lists the policies that a dump has for a workload.
func policiesOf(d *zdump.Dump, namespace, name string) ([][]string, error) {
	at := slices.IndexFunc(d.Workloads, func(w zdump.Workload) bool { return w.Name == name && w.Namespace == namespace })
	if at < 0 {
		return nil, fmt.Errorf("ztunnel knows no workload %s in namespace %s", name, namespace)
	}
	w := d.Workloads[at]
	rows := [][]string{{"ACTION", "POLICY", "SCOPE", "RULES"}}
	var missing []string
	for _, key := range w.Policies {
		if !slices.ContainsFunc(d.Policies, func(p zdump.Policy) bool { return p.Namespace+"/"+p.Name == key }) {
			missing = append(missing, key)
		}
	}
	all := slices.SortedFunc(slices.Values(d.Policies), func(a, b zdump.Policy) int {
		return cmp.Or(-cmp.Compare(strings.ToUpper(a.Action), strings.ToUpper(b.Action)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, p := range all {
		key := p.Namespace + "/" + p.Name
		in := p.Scope == "Global" || p.Scope == "Namespace" && p.Namespace == namespace || slices.Contains(w.Policies, key)
		if !in {
			continue
		}
		var rules []json.RawMessage
		if len(p.Rules) > 0 && json.Unmarshal(p.Rules, &rules) != nil {
			return nil, errors.New("rules of policy " + key + " are no list")
		}
		action := strings.ToUpper(p.Action)
		if p.DryRun {
			action += " (dry run)"
		}
		count := fmt.Sprint(len(rules))
		if p.Problem != "" {
			count += ", not understood: " + p.Problem
		}
		rows = append(rows, []string{action, key, p.Scope, count})
	}
	for _, m := range missing {
		rows = append(rows, []string{"DENY", m, "named, not received", "everything is denied until it comes"})
	}
	return rows, nil
}
