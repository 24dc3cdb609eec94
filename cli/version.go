package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/table"
)

// versions are of everything that one can ask.
type versions struct {
	Client       string           `json:"clientVersion"`
	ControlPlane []versionOf      `json:"controlPlaneVersion,omitempty"`
	DataPlane    []versionOfProxy `json:"dataPlaneVersion,omitempty"`
	// Note says why there is no more.
	Note string `json:"note,omitempty"`
}

type versionOf struct {
	Pod     string `json:"pod"`
	Node    string `json:"node,omitempty"`
	Version string `json:"version"`
}

type versionOfProxy struct {
	Proxy   string `json:"proxy"`
	Kind    string `json:"kind"`
	Node    string `json:"node,omitempty"`
	Version string `json:"version"`
}

// unknown is the version of a proxy that does not say it.
const unknown = "unknown"

func newVersion(env Env) *cobra.Command {
	l := newLook(env)
	var output string
	var remote, brief bool
	c := &cobra.Command{
		Use: "version", Short: "Print the versions of this command, of the control plane and of the proxies", Args: cobra.NoArgs,
		Example: "  ambit version\n  ambit version --remote=false --short\n  ambit version -o wide",
		RunE: func(c *cobra.Command, _ []string) error {
			v := versions{Client: env.Version}
			if remote {
				if err := l.versions(c.Context(), &v); err != nil {
					v.Note = err.Error()
				}
			}
			switch output {
			case "json", "yaml":
				return encode(env.Out, output, v)
			case "", "wide":
			default:
				return usage("unknown output %q: want wide, json or yaml", output)
			}
			if brief && !remote {
				fmt.Fprintln(env.Out, v.Client)
				return nil
			}
			return v.tell(env, output == "wide")
		},
	}
	l.flags(c)
	c.Flags().StringVarP(&output, "output", "o", "", "wide (every pod by itself), json or yaml")
	c.Flags().BoolVar(&remote, "remote", true, "ask the mesh that runs too")
	c.Flags().BoolVarP(&brief, "short", "s", false, "with --remote=false, the bare version")
	completeFlag(c, "output", words("wide", "json", "yaml"))
	return c
}

// tell shows how many have which version; pod by pod if wanted, or if they are not all of one.
func (v versions) tell(env Env, wide bool) error {
	fmt.Fprintf(env.Out, "client version: %s\n", v.Client)
	control := map[string]int{}
	for _, p := range v.ControlPlane {
		control[p.Version]++
	}
	for _, version := range slices.Sorted(maps.Keys(control)) {
		fmt.Fprintf(env.Out, "control plane version: %s\n", version)
	}
	proxies := map[string]map[string]int{}
	for _, p := range v.DataPlane {
		if proxies[p.Version] == nil {
			proxies[p.Version] = map[string]int{}
		}
		proxies[p.Version][p.Kind]++
	}
	for _, version := range slices.Sorted(maps.Keys(proxies)) {
		n, kinds := 0, []string{}
		for _, kind := range slices.Sorted(maps.Keys(proxies[version])) {
			n += proxies[version][kind]
			kinds = append(kinds, fmt.Sprintf("%d %s", proxies[version][kind], kind))
		}
		fmt.Fprintf(env.Out, "data plane version: %s (%s: %s)\n", version, count(n, "proxy", "proxies"), strings.Join(kinds, ", "))
	}
	if wide || len(control) > 1 || len(proxies) > 1 {
		rows := [][]string{{"POD", "KIND", "NODE", "VERSION"}}
		for _, p := range v.ControlPlane {
			rows = append(rows, []string{p.Pod, "control plane", p.Node, p.Version})
		}
		for _, p := range v.DataPlane {
			rows = append(rows, []string{p.Proxy, p.Kind, p.Node, p.Version})
		}
		fmt.Fprintln(env.Out)
		if err := table.Align(env.Out, rows); err != nil {
			return err
		}
	}
	if v.Note != "" {
		fmt.Fprintln(env.Err, table.Plain(v.Note))
	}
	return nil
}

// count is a number of things.
func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// versions asks the control plane's pods and every proxy, all at once; what could be learned beside an error stays.
func (l *look) versions(ctx context.Context, v *versions) error {
	pods, none := l.podsOf(ctx, istiodPods, "control plane")
	answers := askEach(pods, func(p *corev1.Pod) (string, error) {
		b, err := l.page(ctx, p, debugPort, "/version")
		return strings.TrimSpace(string(b)), err
	})
	for _, a := range answers {
		v.ControlPlane = append(v.ControlPlane, versionOf{a.pod.Name + "." + a.pod.Namespace, a.pod.Spec.NodeName, cmp.Or(a.value, unknown)})
	}
	objects, err := l.mesh().List(ctx, kindNamed("pods"), "", "")
	if err != nil {
		return cmp.Or(none, err) // the same, if the cluster is not there
	}
	var proxies []*corev1.Pod
	for _, o := range objects {
		if p, ok := o.(*corev1.Pod); ok && speaksXDS(p) && p.Status.Phase == corev1.PodRunning {
			proxies = append(proxies, p)
		}
	}
	build := regexp.MustCompile(`(?m)^istio_build\{[^}]*tag="([^"]*)"`)
	said := askEach(proxies, func(p *corev1.Pod) (string, error) {
		b, err := l.page(ctx, p, 15020, "/stats/prometheus")
		if m := build.FindSubmatch(b); m != nil {
			return string(m[1]), nil
		}
		return unknown, err
	})
	for _, a := range said {
		one := versionOfProxy{a.pod.Name + "." + a.pod.Namespace, "gateway", a.pod.Spec.NodeName, a.value}
		if a.pod.Labels["app"] == "ztunnel" {
			one.Kind = "ztunnel"
		}
		v.DataPlane = append(v.DataPlane, one)
	}
	return errors.Join(none, failures(answers), failures(said))
}
