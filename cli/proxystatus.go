package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/table"
)

// xdsClient is a proxy as the control plane sees it, in the words of its /debug/syncz.
type xdsClient struct {
	Caller struct{ Namespace, Pod, ServiceAccount, Node string }
	Node   string
	// Cluster names the proxy's cluster.
	Cluster   string
	Connected time.Time
	Types     map[string]xdsProgress
	// Istiod and Version are of the control plane that it is connected to.
	Istiod, Version string
}

type xdsProgress struct {
	Sent, Acked, Nack  string
	Outstanding        bool
	Held               int
	SentAt, AnsweredAt time.Time
}

// word says how far a proxy is with a type.
func (p xdsProgress) word() string {
	switch {
	case p.Nack != "":
		return "NACK"
	case p.Sent == "":
		return "NOT SENT"
	case p.Outstanding || p.Sent != p.Acked:
		return "STALE"
	}
	return fmt.Sprintf("SYNCED (%d)", p.Held)
}

// name is "pod.namespace".
func (x xdsClient) name() string {
	if parts := strings.Split(x.Node, "~"); len(parts) == 4 {
		return parts[2]
	}
	return cmp.Or(x.Caller.Pod+"."+x.Caller.Namespace, x.Node)
}

func newProxyStatus(env Env) *cobra.Command {
	l := newLook(env)
	var output string
	c := &cobra.Command{
		Use: "proxy-status [PROXY]", Aliases: []string{"ps"}, Short: "Show how far each proxy is with its configuration", Args: cobra.MaximumNArgs(1),
		Long: "Show every proxy that is connected to the control plane, ztunnels, waypoints and gateways, and for each type of\n" +
			"configuration whether it took in the last one (SYNCED and how many resources it has), has not answered yet (STALE) or\n" +
			"refused it (NACK, with its reason).",
		RunE: func(c *cobra.Command, args []string) error {
			pods, err := l.podsOf(c.Context(), istiodPods, "no control plane runs in namespace "+systemNamespace+": see `ambit local get pods -A`")
			if err != nil {
				return err
			}
			var all []xdsClient
			for _, p := range pods {
				b, err := l.mesh().Pod(c.Context(), http.MethodGet, p.Namespace, p.Name, debugPort, "/debug/syncz")
				if err != nil {
					return fmt.Errorf("ask %s for its proxies: %w", p.Name, err)
				}
				version, err := l.mesh().Pod(c.Context(), http.MethodGet, p.Namespace, p.Name, debugPort, "/version")
				if err != nil {
					return fmt.Errorf("ask %s for its version: %w", p.Name, err)
				}
				var some []xdsClient
				if err := json.Unmarshal(b, &some); err != nil {
					return fmt.Errorf("answer of %s: %w", p.Name, err)
				}
				for i := range some {
					some[i].Istiod, some[i].Version = p.Name, strings.TrimSpace(string(version))
				}
				all = append(all, some...)
			}
			if len(args) > 0 {
				all = slices.DeleteFunc(all, func(x xdsClient) bool { return x.name() != args[0] && x.Caller.Pod != args[0] })
				if len(all) == 0 {
					return errors.New("no proxy " + args[0] + " is connected to the control plane; see `ambit proxy-status`")
				}
			}
			if l.namespace != "" {
				all = slices.DeleteFunc(all, func(x xdsClient) bool { return x.Caller.Namespace != l.namespace })
			}
			if output != "" {
				return encode(env.Out, output, all)
			}
			rows, reasons := statusTable(all)
			if err := table.Align(env.Out, rows); err != nil {
				return err
			}
			for _, r := range reasons {
				fmt.Fprintln(env.Out, r)
			}
			return nil
		},
	}
	l.flags(c)
	c.Flags().StringVarP(&l.namespace, "namespace", "n", "", "only proxies of this namespace")
	c.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	return c
}

// statusTable has a row for each proxy and a column for each type; reasons are those of refusals.
func statusTable(all []xdsClient) (rows [][]string, reasons []string) {
	slices.SortFunc(all, func(a, b xdsClient) int {
		return cmp.Or(cmp.Compare(a.Caller.Namespace, b.Caller.Namespace), cmp.Compare(a.name(), b.name()))
	})
	types := map[string]bool{}
	for _, x := range all {
		for url := range x.Types {
			types[url] = true
		}
	}
	urls := slices.Sorted(maps.Keys(types))
	head := []string{"NAME", "CLUSTER", "NODE"}
	for _, url := range urls {
		head = append(head, strings.ToUpper(url[strings.LastIndexByte(url, '.')+1:]))
	}
	rows = append(rows, append(head, "ISTIOD", "VERSION"))
	for _, x := range all {
		row := []string{x.name(), x.Cluster, x.Caller.Node}
		for _, url := range urls {
			p, ok := x.Types[url]
			if !ok {
				row = append(row, "-")
				continue
			}
			row = append(row, p.word())
			if p.Nack != "" {
				reasons = append(reasons, fmt.Sprintf("%s refused %s: %s", x.name(), url, p.Nack))
			}
		}
		rows = append(rows, append(row, x.Istiod, x.Version))
	}
	return rows, reasons
}
