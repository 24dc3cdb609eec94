package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/cli/internal/gdump"
	"github.com/ambit-mesh/ambit/local/table"
	"github.com/ambit-mesh/ambit/mesh"
)

// gatewayPart is one subcommand of proxy-config: a list of the dump and how it is shown.
type gatewayPart struct {
	name, short, key string
	alias            []string
	table            func(*gdump.Dump) gdump.Table
}

func gatewayParts() []gatewayPart {
	return []gatewayPart{
		{"listener", "Show on which ports a gateway takes what", "listeners", []string{"listeners", "l"}, (*gdump.Dump).ListenerTable},
		{"route", "Show the rules by which requests are led", "routes", []string{"routes", "r"}, (*gdump.Dump).RouteTable},
		{"cluster", "Show the services that rules lead to", "backends", []string{"clusters", "c", "backend", "backends"}, (*gdump.Dump).BackendTable},
		{"endpoint", "Show the endpoints of those services", "backends", []string{"endpoints", "ep", "eds"}, (*gdump.Dump).EndpointTable},
		{"secret", "Show which certificates a gateway has; keys stay in it", "secrets", []string{"secrets", "s"}, (*gdump.Dump).SecretTable},
	}
}

func newProxyConfig(env Env) *cobra.Command {
	l := newLook(env)
	var file, output string
	c := group(&cobra.Command{
		Use: "proxy-config", Aliases: []string{"pc"}, Short: "Show what a gateway has in force",
		Long:    "Show the configuration that a gateway has in force, or that of a /config_dump in a file. Without POD it is the ingress gateway.",
		Example: "  ambit proxy-config route\n  ambit pc endpoint istio-ingressgateway-7d9c.istio-system -o yaml\n  ambit pc all",
	})
	l.flags(c)
	c.PersistentFlags().StringVarP(&file, "file", "f", "", "a /config_dump instead of a running gateway; - is standard input")
	c.PersistentFlags().StringVarP(&output, "output", "o", "short", "short (the table), json or yaml")
	c.PersistentFlags().StringVarP(&l.namespace, "namespace", "n", mesh.SystemNamespace, "namespace of the pod")
	read := func(ctx context.Context, args []string) (*gdump.Dump, error) {
		if !tabular(output) && output != "json" && output != "yaml" {
			return nil, usage("unknown output %q: want short, json or yaml", output)
		}
		if file != "" {
			return l.gatewayFile(file, args)
		}
		return l.gatewayDump(ctx, strings.Join(args, ""))
	}
	for _, p := range gatewayParts() {
		c.AddCommand(&cobra.Command{
			Use: p.name + " [POD[.NAMESPACE]]", Aliases: p.alias, Short: p.short, Args: cobra.MaximumNArgs(1),
			Example: "  ambit proxy-config " + p.name + "\n  ambit pc " + p.name + " -o yaml",
			RunE: func(c *cobra.Command, args []string) error {
				d, err := read(c.Context(), args)
				if err != nil {
					return err
				}
				if !tabular(output) {
					return encode(env.Out, output, d.Raw[p.key])
				}
				return table.Align(env.Out, p.table(d))
			},
		})
	}
	c.AddCommand(&cobra.Command{
		Use: "all [POD[.NAMESPACE]]", Short: "Show all of it", Args: cobra.MaximumNArgs(1),
		Example: "  ambit proxy-config all",
		RunE: func(c *cobra.Command, args []string) error {
			d, err := read(c.Context(), args)
			if err != nil {
				return err
			}
			if !tabular(output) {
				return encode(env.Out, output, d.Raw)
			}
			for i, p := range gatewayParts() {
				if i > 0 {
					fmt.Fprintln(env.Out)
				}
				if err := table.Align(env.Out, p.table(d)); err != nil {
					return err
				}
			}
			return nil
		},
	})
	c.AddCommand(newLogFilter(l, &cobra.Command{
		Use: "log [POD[.NAMESPACE]]", Short: "Show or change what a gateway logs, until it restarts", Args: cobra.MaximumNArgs(1),
		Example: "  ambit pc log --level debug\n  ambit pc log --reset",
	}, func(ctx context.Context, args []string) ([]*corev1.Pod, error) {
		p, err := l.gatewayPod(ctx, strings.Join(args, ""))
		return []*corev1.Pod{p}, err
	}))
	l.completeNamespace(c)
	completeFlag(c, "output", words("short", "json", "yaml"))
	for _, sub := range c.Commands() {
		sub.ValidArgsFunction = cobra.CompletionFunc(l.somePods(isGateway))
	}
	return c
}

func isGateway(p *corev1.Pod) bool {
	return p.Labels["istio"] == "ingressgateway" || p.Labels[mesh.LabelGatewayManaged] != "" || p.Labels[mesh.LabelGatewayName] != ""
}

func (l *look) gatewayFile(file string, args []string) (*gdump.Dump, error) {
	if len(args) > 0 {
		return nil, usage("--file is a dump by itself: leave the pod out")
	}
	b, err := readDumpFile(l.env, file)
	if err != nil {
		return nil, err
	}
	d, err := gdump.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

// gatewayPod finds the gateway of a pod's name, or the ingress gateway.
func (l *look) gatewayPod(ctx context.Context, name string) (*corev1.Pod, error) {
	if name == "" {
		return l.running(ctx, mesh.SystemNamespace, "istio=ingressgateway", "the ingress gateway")
	}
	p, err := l.onePod(ctx, name)
	if err == nil && !isGateway(p) {
		err = fmt.Errorf("pod %s.%s is no gateway; `ambit ztunnel-config workload %s.%s` shows what its ztunnel knows of it", p.Name, p.Namespace, p.Name, p.Namespace)
	}
	return p, err
}

func (l *look) gatewayDump(ctx context.Context, name string) (*gdump.Dump, error) {
	p, err := l.gatewayPod(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := l.page(ctx, p, l.adminPort, "/config_dump")
	if err != nil {
		return nil, fmt.Errorf("read the state of a gateway: %w", err)
	}
	return gdump.Parse(b)
}
