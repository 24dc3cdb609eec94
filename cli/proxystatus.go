package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/table"
	"github.com/ambit-mesh/ambit/mesh"
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
	Behind             []string
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

// trouble says what a proxy has not taken in, and why; "" if it has all.
func (p xdsProgress) trouble(proxy, kind string, now time.Time) string {
	which := ""
	if len(p.Behind) > 0 {
		which = ": " + strings.Join(p.Behind, ", ")
	}
	switch {
	case p.Nack != "":
		return fmt.Sprintf("%s refused %s%s: %s. What it had of it stays in force.", proxy, kind, which, strings.TrimSuffix(p.Nack, "."))
	case p.Outstanding:
		return fmt.Sprintf("%s has not answered for %s sent %s ago%s. Until it does, what it had stays in force.", proxy, kind, table.Age(p.SentAt, now), which)
	}
	return ""
}

// short is a type's name without its package.
func short(url string) string { return url[strings.LastIndexByte(url, '.')+1:] }

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
		Use: "proxy-status [POD[.NAMESPACE]]", Aliases: []string{"ps"}, Short: "Show how far each proxy is with its configuration", Args: cobra.MaximumNArgs(1),
		Long: "Show every proxy that is connected to the control plane, ztunnels, waypoints and gateways, and for each type of\n" +
			"configuration whether it took in the last one (SYNCED and how many resources it has), has not answered yet (STALE) or\n" +
			"refused it (NACK). Below it stands which policy, workload or service that is, the reason of each refusal, and which\n" +
			"proxies run and are not connected. With a proxy's name, each type is told by itself.",
		Example: "  ambit proxy-status\n  ambit ps ztunnel-x7k2p\n  ambit ps -o json",
		RunE: func(c *cobra.Command, args []string) error {
			all, silent := l.proxies(c.Context())
			switch {
			case errors.As(silent, new(absence)):
				return errors.Join(silent, l.tellAlone(c.Context()))
			case len(all) == 0 && silent != nil:
				return silent
			}
			if l.namespace != "" {
				if err := l.namespaceExists(c.Context(), l.namespace); err != nil {
					return err
				}
				all = slices.DeleteFunc(all, func(x xdsClient) bool { return x.Caller.Namespace != l.namespace })
			}
			if len(args) > 0 {
				var known []string
				for _, x := range all {
					known = append(known, x.Caller.Pod)
				}
				all = slices.DeleteFunc(all, func(x xdsClient) bool { return x.name() != args[0] && x.Caller.Pod != args[0] })
				if len(all) == 0 {
					return errors.Join(silent, fmt.Errorf("no proxy %q is connected to the control plane%s; see `ambit proxy-status`", args[0], suggest(args[0], known)))
				}
			}
			if output == "json" || output == "yaml" {
				return errors.Join(encode(env.Out, output, append([]xdsClient{}, all...)), silent)
			}
			if !tabular(output) {
				return usage("unknown output %q: want short, json or yaml", output)
			}
			if len(args) > 0 {
				return errors.Join(l.tellProxy(all[0]), silent)
			}
			return errors.Join(l.tellProxies(c.Context(), all, silent == nil), silent)
		},
	}
	l.flags(c)
	c.Flags().StringVarP(&l.namespace, "namespace", "n", "", "only proxies of this namespace")
	c.Flags().StringVarP(&output, "output", "o", "short", "short (the table), json or yaml")
	l.completeNamespace(c)
	completeFlag(c, "output", words("short", "json", "yaml"))
	c.ValidArgsFunction = cobra.CompletionFunc(l.somePods(speaksXDS))
	return c
}

// speaksXDS tells whether a pod is a proxy that the control plane configures.
func speaksXDS(p *corev1.Pod) bool {
	return p.Labels["app"] == "ztunnel" && p.Namespace == systemNamespace || p.Labels["istio"] == "ingressgateway" || p.Labels[mesh.LabelGatewayManaged] != ""
}

// proxies asks every pod of the control plane who is connected to it. The error tells of those that did not answer.
func (l *look) proxies(ctx context.Context) ([]xdsClient, error) {
	pods, err := l.podsOf(ctx, istiodPods, "control plane")
	if err != nil {
		return nil, err
	}
	answers := askEach(pods, func(p *corev1.Pod) ([]xdsClient, error) { return l.proxiesOf(ctx, p) })
	var all []xdsClient
	for _, a := range answers {
		all = append(all, a.value...)
	}
	slices.SortFunc(all, func(a, b xdsClient) int {
		return cmp.Or(cmp.Compare(a.Caller.Namespace, b.Caller.Namespace), cmp.Compare(a.name(), b.name()))
	})
	return all, failures(answers)
}

// proxiesOf asks one pod of the control plane.
func (l *look) proxiesOf(ctx context.Context, p *corev1.Pod) ([]xdsClient, error) {
	b, err := l.page(ctx, p, debugPort, "/debug/syncz")
	if err != nil {
		return nil, fmt.Errorf("ask the control plane for its proxies: %w", err)
	}
	version, err := l.page(ctx, p, debugPort, "/version")
	if err != nil {
		return nil, fmt.Errorf("ask the control plane for its version: %w", err)
	}
	var some []xdsClient
	if err := json.Unmarshal(b, &some); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", p.Name, err)
	}
	for i := range some {
		some[i].Istiod, some[i].Version = p.Name, strings.TrimSpace(string(version))
	}
	return some, nil
}

// tellProxies shows all proxies. Whole says that all of the control plane answered: then who is not among them is not
// connected.
func (l *look) tellProxies(ctx context.Context, all []xdsClient, whole bool) error {
	rows, troubles := statusTable(all, time.Now())
	if err := table.Align(l.env.Out, rows); err != nil {
		return err
	}
	var away []string
	if whole {
		var err error
		if away, err = l.unconnected(ctx, all); err != nil {
			return err
		}
	}
	if troubles = append(troubles, away...); len(troubles) > 0 {
		fmt.Fprintln(l.env.Out)
	}
	p := newPaint(l.env.Out)
	for _, t := range troubles {
		fmt.Fprintln(l.env.Out, p.warn(table.Plain(t)))
	}
	return nil
}

// tellAlone tells which proxies run while nobody of the control plane answers.
func (l *look) tellAlone(ctx context.Context) error {
	objects, err := l.mesh().List(ctx, kindNamed("pods"), l.namespace, "")
	if err != nil {
		return nil // the same as was said before
	}
	n := 0
	for _, o := range objects {
		if p, ok := o.(*corev1.Pod); ok && speaksXDS(p) && ready(p) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%s: what was in force stays in force there, and no change arrives", count(n, "proxy runs on without it", "proxies run on without it"))
}

// unconnected are the proxies that run and that no control plane knows.
func (l *look) unconnected(ctx context.Context, all []xdsClient) ([]string, error) {
	objects, err := l.mesh().List(ctx, kindNamed("pods"), l.namespace, "")
	if err != nil {
		return nil, err
	}
	var away []string
	for _, o := range objects {
		p, ok := o.(*corev1.Pod)
		if !ok || !speaksXDS(p) || p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil ||
			slices.ContainsFunc(all, func(x xdsClient) bool { return x.Caller.Pod == p.Name && x.Caller.Namespace == p.Namespace }) {
			continue
		}
		if why := troubleOf(p, nil, time.Now(), l.see); why != "" {
			away = append(away, fmt.Sprintf("%s.%s on %s is not connected: %s.", p.Name, p.Namespace, p.Spec.NodeName, why))
			continue
		}
		away = append(away, fmt.Sprintf("%s.%s on %s is not connected: it works with what it had. See %s.", p.Name, p.Namespace, p.Spec.NodeName, l.see("logs -n", p.Namespace, p.Name, "--tail 20")))
	}
	slices.Sort(away)
	return away, nil
}

// tellProxy shows one proxy, a type a line.
func (l *look) tellProxy(x xdsClient) error {
	now := time.Now()
	fmt.Fprintf(l.env.Out, "%s on %s, connected to %s (%s) for %s\n\n", x.name(), x.Caller.Node, x.Istiod, x.Version, table.Age(x.Connected, now))
	rows := [][]string{{"TYPE", "STATUS", "SENT", "ANSWERED"}}
	var troubles []string
	for _, url := range slices.Sorted(maps.Keys(x.Types)) {
		p := x.Types[url]
		row := []string{short(url), p.word()}
		for _, at := range []time.Time{p.SentAt, p.AnsweredAt} {
			if at.IsZero() {
				row = append(row, "never")
			} else {
				row = append(row, table.Age(at, now)+" ago")
			}
		}
		rows = append(rows, row)
		if t := p.trouble(x.name(), short(url), now); t != "" {
			troubles = append(troubles, t)
		}
	}
	if err := table.Align(l.env.Out, rows); err != nil {
		return err
	}
	if len(troubles) > 0 {
		fmt.Fprintf(l.env.Out, "\n%s\n", table.Plain(strings.Join(troubles, "\n")))
	}
	return nil
}

// statusTable has a row for each proxy and a column for each type; troubles are what they have not taken in.
func statusTable(all []xdsClient, now time.Time) (rows [][]string, troubles []string) {
	types := map[string]bool{}
	for _, x := range all {
		for url := range x.Types {
			types[url] = true
		}
	}
	urls := slices.Sorted(maps.Keys(types))
	head := []string{"NAME", "CLUSTER", "NODE"}
	for _, url := range urls {
		head = append(head, strings.ToUpper(short(url)))
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
			if t := p.trouble(x.name(), short(url), now); t != "" {
				troubles = append(troubles, t)
			}
		}
		rows = append(rows, append(row, x.Istiod, x.Version))
	}
	return rows, troubles
}
