package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/table"
	"github.com/ambit-mesh/ambit/cli/internal/zdump"
)

// part is one subcommand of ztunnel-config: a list of the dump and how it is shown.
type part struct {
	name, short, key string
	alias            []string
	table            func(*zdump.Dump, zdump.Filter) zdump.Table
}

func parts() []part {
	return []part{
		{"workload", "Show the workloads that ztunnel knows", "workloads", []string{"workloads", "w"}, (*zdump.Dump).WorkloadTable},
		{"service", "Show the services that ztunnel knows", "services", []string{"services", "s", "svc"}, (*zdump.Dump).ServiceTable},
		{"policy", "Show the policies that ztunnel knows", "policies", []string{"policies", "p", "pol"}, (*zdump.Dump).PolicyTable},
		{"certificate", "Show the certificates that ztunnel holds for its pods", "certificates", []string{"certificates", "certs", "cert"}, func(d *zdump.Dump, f zdump.Filter) zdump.Table {
			return d.CertificateTable(f, time.Now())
		}},
		{"connections", "Show the connections that the pods have open", "workloadState", []string{"connection", "cons"}, (*zdump.Dump).ConnectionTable},
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
	c := &cobra.Command{
		Use: "ztunnel-config", Aliases: []string{"zc"}, Short: "Show what a ztunnel knows and does",
		Long: "Show the state of a running ztunnel: the first one, or that of --node or of a pod's name, or a /config_dump in a file.",
		Example: "  ambit ztunnel-config workload --workload-namespace default\n  ambit zc service --node node-2 -o yaml\n" +
			"  ambit zc connections --direction inbound",
	}
	l.flags(c)
	c.PersistentFlags().StringVar(&f.node, "node", "", "the ztunnel of this node")
	for _, p := range parts() {
		sub := &cobra.Command{
			Use: p.name + " [ZTUNNEL]", Aliases: p.alias, Short: p.short, Args: cobra.MaximumNArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				d, err := l.readDump(c.Context(), f, args)
				if err != nil {
					return err
				}
				if f.output != "" {
					return encode(env.Out, f.output, d.Only(p.key, f.Filter))
				}
				return table.Align(env.Out, p.table(d, f.Filter))
			},
		}
		f.add(sub, p.name)
		c.AddCommand(sub)
	}
	c.AddCommand(newZtunnelAll(l, &f), newZtunnelLog(l, &f))
	return c
}

func (f *zcFlags) add(c *cobra.Command, name string) {
	c.Flags().StringVarP(&f.output, "output", "o", "", "json or yaml")
	c.Flags().StringVarP(&f.file, "file", "f", "", "a /config_dump instead of a running ztunnel")
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

// readDump reads the dump that the options and the pod's name mean.
func (l *look) readDump(ctx context.Context, f zcFlags, args []string) (*zdump.Dump, error) {
	switch f.Direction {
	case "", "inbound", "outbound":
	default:
		return nil, fmt.Errorf("--direction %q: want inbound or outbound", f.Direction)
	}
	if f.file == "-" {
		b, err := readAll(l.env.In, "standard input")
		if err != nil {
			return nil, err
		}
		return zdump.Parse(b)
	}
	if f.file != "" {
		b, err := readFile(f.file)
		if err != nil {
			return nil, err
		}
		d, err := zdump.Parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.file, err)
		}
		return d, nil
	}
	pods, err := l.ztunnels(ctx, f.node, strings.Join(args, ""))
	if err != nil {
		return nil, err
	}
	return l.dump(ctx, pods[0])
}

func newZtunnelAll(l *look, f *zcFlags) *cobra.Command {
	c := &cobra.Command{
		Use: "all [ZTUNNEL]", Short: "Show all that a ztunnel knows", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := l.readDump(c.Context(), *f, args)
			if err != nil {
				return err
			}
			if f.output != "" {
				return encode(l.env.Out, f.output, d.Raw)
			}
			for i, p := range parts() {
				if i > 0 {
					fmt.Fprintln(l.env.Out)
				}
				if err := table.Align(l.env.Out, p.table(d, f.Filter)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(c, "all")
	return c
}

func newZtunnelLog(l *look, f *zcFlags) *cobra.Command {
	var level string
	var reset bool
	c := &cobra.Command{
		Use: "log [ZTUNNEL]", Short: "Show or change what the ztunnels log", Args: cobra.MaximumNArgs(1),
		Long:    "Show or change the log filter of every ztunnel, or of that of --node or of a pod's name, until it restarts.",
		Example: "  ambit zc log --level debug\n  ambit zc log --level info,access=debug --node node-2\n  ambit zc log --reset",
		RunE: func(c *cobra.Command, args []string) error {
			if reset && level != "" {
				return errors.New("give --level or --reset, not both")
			}
			pods, err := l.ztunnels(c.Context(), f.node, strings.Join(args, ""))
			if err != nil {
				return err
			}
			q := url.Values{}
			if level != "" {
				q.Set("level", level)
			}
			if reset {
				q.Set("reset", "")
			}
			for _, p := range pods {
				b, err := l.mesh().Pod(c.Context(), http.MethodPost, p.Namespace, p.Name, l.adminPort, "/logging?"+q.Encode())
				if err != nil {
					return fmt.Errorf("log filter of %s: %w", p.Name, err)
				}
				fmt.Fprintf(l.env.Out, "%s.%s:\n%s\n", p.Name, p.Namespace, strings.TrimSpace(string(b)))
			}
			return nil
		},
	}
	c.Flags().StringVar(&level, "level", "", "a level (trace, debug, info, warn, error, off) or a filter such as info,access=debug")
	c.Flags().BoolVarP(&reset, "reset", "r", false, "go back to the filter that it started with")
	return c
}
