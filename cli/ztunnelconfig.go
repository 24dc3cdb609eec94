package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/cli/internal/zdump"
	"github.com/ambit-mesh/ambit/local/table"
)

// part is one subcommand of ztunnel-config: a list of the dump and how it is shown.
type part struct {
	name, short, key string
	alias            []string
	// example is what one adds to the command.
	example string
	table   func(*zdump.Dump, zdump.Filter) zdump.Table
	// own says that each ztunnel's list is its own; the others are the same everywhere.
	own bool
}

func parts() []part {
	return []part{
		{"workload", "Show the workloads that ztunnel knows", "workloads", []string{"workloads", "w"}, "--workload-namespace default", (*zdump.Dump).WorkloadTable, false},
		{"service", "Show the services that ztunnel knows", "services", []string{"services", "s", "svc"}, "--service-namespace default -o yaml", (*zdump.Dump).ServiceTable, false},
		{"policy", "Show the policies that ztunnel knows", "policies", []string{"policies", "p", "pol"}, "--policy-namespace default", (*zdump.Dump).PolicyTable, false},
		{"certificate", "Show the certificates that ztunnel holds for its pods", "certificates", []string{"certificates", "certs", "cert"}, "--node node-2", func(d *zdump.Dump, f zdump.Filter) zdump.Table {
			return d.CertificateTable(f, time.Now())
		}, true},
		{"connections", "Show the connections that the pods have open", "workloadState", []string{"connection", "cons"}, "--direction inbound", (*zdump.Dump).ConnectionTable, true},
	}
}

// zcFlags are the options of ztunnel-config.
type zcFlags struct {
	zdump.Filter
	file, node, output string
}

func newZtunnelConfig(env Env) *cobra.Command {
	l := newLook(env)
	var f zcFlags
	c := group(&cobra.Command{
		Use: "ztunnel-config", Aliases: []string{"zc"}, Short: "Show what a ztunnel knows and does",
		Long: "Show the state of a running ztunnel, or of a /config_dump in a file, ours or Istio's.\n\n" +
			"POD names a ztunnel, or any pod: then it is the ztunnel of that pod's node, and workload and connections show that pod\n" +
			"only. Without POD or --node, certificate and connections show those of all ztunnels, and the rest, which is the same in\n" +
			"all of them, that of the first.",
		Example: "  ambit ztunnel-config workload --workload-namespace default\n  ambit zc service --node node-2 -o yaml\n" +
			"  ambit zc connections --direction inbound\n  ambit zc connections productpage-v1-74bc.default\n" +
			"  kubectl exec -n istio-system ztunnel-x -- curl -s localhost:15000/config_dump | ambit zc all -f -",
	})
	l.flags(c)
	c.PersistentFlags().StringVar(&f.node, "node", "", "the ztunnel of this node")
	for _, p := range parts() {
		sub := &cobra.Command{
			Use: p.name + " [POD[.NAMESPACE]]", Aliases: p.alias, Short: p.short, Args: cobra.MaximumNArgs(1),
			Example: "  ambit ztunnel-config " + p.name + "\n  ambit zc " + p.name + " " + p.example,
			RunE: func(c *cobra.Command, args []string) error {
				d, err := l.readDump(c.Context(), &f, args, p.own)
				if d == nil {
					return err
				}
				if !tabular(f.output) {
					return errors.Join(encode(env.Out, f.output, d.Only(p.key, f.Filter)), err)
				}
				t := p.table(d, f.Filter)
				if len(t) == 1 && f.Filter != (zdump.Filter{Raw: f.Raw}) {
					fmt.Fprintf(env.Err, "No %s passes the filter; without it there are %d.\n", p.name, len(p.table(d, zdump.Filter{}))-1)
				}
				return errors.Join(table.Align(env.Out, t), err)
			},
		}
		f.add(sub, p.name)
		c.AddCommand(sub)
	}
	c.AddCommand(newZtunnelAll(l, &f), newZtunnelLog(l, &f))
	completeFlag(c, "node", l.objects("nodes"))
	for _, sub := range c.Commands() {
		sub.ValidArgsFunction = cobra.CompletionFunc(l.somePods(func(*corev1.Pod) bool { return true }))
		for flag, words := range map[string]completer{
			"output": words("short", "json", "yaml"), "direction": words("inbound", "outbound"), "workload-node": l.objects("nodes"),
			"workload-namespace": l.objects("namespaces"), "service-namespace": l.objects("namespaces"), "policy-namespace": l.objects("namespaces"),
		} {
			if sub.Flags().Lookup(flag) != nil {
				completeFlag(sub, flag, words)
			}
		}
	}
	return c
}

// tabular tells whether an output is the table: istioctl calls it short.
func tabular(output string) bool { return output == "" || output == "short" || output == "table" }

func (f *zcFlags) add(c *cobra.Command, name string) {
	c.Flags().StringVarP(&f.output, "output", "o", "short", "short (the table), json or yaml")
	c.Flags().StringVarP(&f.file, "file", "f", "", "a /config_dump instead of a running ztunnel; - is standard input")
	ns := name + "-namespace"
	if name == "connections" || name == "certificate" || name == "all" {
		ns = "workload-namespace"
	}
	c.Flags().StringVar(&f.Namespace, ns, "", "only of this namespace")
	switch name {
	case "workload":
		c.Flags().StringVar(&f.Node, "workload-node", "", "only on this node")
		c.Flags().StringVar(&f.Address, "address", "", "only with this address")
	case "service":
		c.Flags().StringVar(&f.Address, "address", "", "only with this address")
	case "connections":
		c.Flags().StringVar(&f.Direction, "direction", "", "inbound or outbound")
		c.Flags().BoolVar(&f.Raw, "raw", false, "show addresses, not names")
	}
}

// check refuses options that make no sense, before anybody is asked.
func (f *zcFlags) check(args []string) error {
	switch {
	case !slices.Contains([]string{"", "inbound", "outbound"}, f.Direction):
		return fmt.Errorf("--direction %q: want inbound or outbound", f.Direction)
	case !tabular(f.output) && f.output != "json" && f.output != "yaml":
		return fmt.Errorf("unknown output %q: want short, json or yaml", f.output)
	case f.file != "" && (f.node != "" || len(args) > 0):
		return errors.New("--file is a dump by itself: leave --node and the pod out")
	case f.node != "" && len(args) > 0:
		return errors.New("name a pod or give --node, not both")
	}
	return nil
}

// readDump reads the dump that the options and the pod's name mean; all says that without either it is everybody's. Of those
// it is what was to be had, with an error if that is not all.
func (l *look) readDump(ctx context.Context, f *zcFlags, args []string, all bool) (*zdump.Dump, error) {
	if err := f.check(args); err != nil {
		return nil, err
	}
	if f.file != "" {
		return dumpOf(l.env, f.file)
	}
	pods, err := l.ztunnelsFor(ctx, f, args)
	if err != nil {
		return nil, err
	}
	if !all {
		return l.firstDump(ctx, pods)
	}
	var d *zdump.Dump
	answers := askEach(pods, func(p *corev1.Pod) (*zdump.Dump, error) { return l.dump(ctx, p) })
	for _, a := range answers {
		switch {
		case a.err != nil:
		case d == nil:
			d = a.value
		default:
			if err := d.Join(a.value); err != nil {
				return nil, err
			}
		}
	}
	return d, failures(answers)
}

// firstDump is that of the first ztunnel that answers.
func (l *look) firstDump(ctx context.Context, pods []*corev1.Pod) (*zdump.Dump, error) {
	var failed []error
	for _, p := range pods {
		d, err := l.dump(ctx, p)
		if err == nil {
			for _, f := range failed {
				fmt.Fprintf(l.env.Err, "Warning: %s; this is what %s on %s knows\n", table.Plain(f.Error()), p.Name, p.Spec.NodeName)
			}
			return d, nil
		}
		if failed = append(failed, err); ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failed...)
}

// dumpOf reads a dump of a file.
func dumpOf(env Env, file string) (*zdump.Dump, error) {
	b, err := readDumpFile(env, file)
	if err != nil {
		return nil, err
	}
	d, err := zdump.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

func readDumpFile(env Env, file string) ([]byte, error) {
	if file == "-" {
		return readAll(env.In, "standard input", maxDump)
	}
	return readFile(file, maxDump)
}

// ztunnelsFor finds the ztunnels that --node or a pod's name means, or all. A pod that is none itself becomes the filter.
func (l *look) ztunnelsFor(ctx context.Context, f *zcFlags, args []string) ([]*corev1.Pod, error) {
	if len(args) == 0 {
		return l.ztunnels(ctx, f.node, "")
	}
	name := strings.TrimPrefix(strings.TrimPrefix(args[0], "pods/"), "pod/")
	found, err := l.ztunnels(ctx, "", name)
	if err == nil || strings.HasPrefix(name, "ztunnel-") {
		return found, err
	}
	if l.namespace == "" {
		l.namespace = "default"
	}
	pod, perr := l.onePod(ctx, name)
	if perr != nil {
		return nil, errors.Join(perr, err)
	}
	if pod.Spec.NodeName == "" {
		return nil, fmt.Errorf("pod %s.%s is on no node yet, so no ztunnel knows it", pod.Name, pod.Namespace)
	}
	f.Name, f.Namespace = pod.Name, cmp.Or(f.Namespace, pod.Namespace)
	return l.ztunnels(ctx, pod.Spec.NodeName, "")
}

func newZtunnelAll(l *look, f *zcFlags) *cobra.Command {
	headers := false
	c := &cobra.Command{
		Use: "all [POD[.NAMESPACE]]", Short: "Show all that a ztunnel knows", Args: cobra.MaximumNArgs(1),
		Example: "  ambit ztunnel-config all --with-headers\n  ambit zc all -f config_dump.json",
		RunE: func(c *cobra.Command, args []string) error {
			d, err := l.readDump(c.Context(), f, args, false)
			if err != nil {
				return err
			}
			if !tabular(f.output) {
				return encode(l.env.Out, f.output, d.Raw)
			}
			for i, p := range parts() {
				if i > 0 {
					fmt.Fprintln(l.env.Out)
				}
				if headers {
					fmt.Fprintf(l.env.Out, "%s:\n", strings.ToUpper(p.name))
				}
				if err := table.Align(l.env.Out, p.table(d, f.Filter)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(c, "all")
	c.Flags().BoolVar(&headers, "with-headers", false, "name each table")
	return c
}
