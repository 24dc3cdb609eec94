package cli

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
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
	Version string `json:"version"`
}

type versionOfProxy struct {
	Proxy   string `json:"proxy"`
	Kind    string `json:"kind"`
	Version string `json:"version"`
}

func newVersion(env Env) *cobra.Command {
	l := newLook(env)
	var output string
	var remote, brief bool
	c := &cobra.Command{
		Use: "version", Short: "Print the versions of this command, of the control plane and of the proxies", Args: cobra.NoArgs,
		Example: "  ambit version\n  ambit version --remote=false --short\n  ambit version -o json",
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
			case "":
			default:
				return usage("unknown output %q: want json or yaml", output)
			}
			if brief && !remote {
				fmt.Fprintln(env.Out, v.Client)
				return nil
			}
			v.tell(env)
			return nil
		},
	}
	l.flags(c)
	c.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	c.Flags().BoolVar(&remote, "remote", true, "ask the mesh that runs too")
	c.Flags().BoolVarP(&brief, "short", "s", false, "with --remote=false, the bare version")
	completeFlag(c, "output", words("json", "yaml"))
	return c
}

func (v versions) tell(env Env) {
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
		fmt.Fprintf(env.Out, "data plane version: %s (%d proxies: %s)\n", version, n, strings.Join(kinds, ", "))
	}
	if v.Note != "" {
		fmt.Fprintln(env.Err, v.Note)
	}
}

// versions asks the control plane's pods and every proxy; what could be learned before an error stays.
func (l *look) versions(ctx context.Context, v *versions) error {
	pods, err := l.podsOf(ctx, istiodPods, "no control plane runs in namespace "+systemNamespace)
	if err != nil {
		return err
	}
	for _, p := range pods {
		b, err := l.mesh().Pod(ctx, http.MethodGet, p.Namespace, p.Name, debugPort, "/version")
		if err != nil {
			return fmt.Errorf("ask %s for its version: %w", p.Name, err)
		}
		v.ControlPlane = append(v.ControlPlane, versionOf{p.Name + "." + p.Namespace, strings.TrimSpace(string(b))})
	}
	objects, err := l.mesh().List(ctx, kindNamed("pods"), "", "")
	if err != nil {
		return err
	}
	build := regexp.MustCompile(`(?m)^istio_build\{[^}]*tag="([^"]*)"`)
	for _, o := range objects {
		p, ok := o.(*corev1.Pod)
		if !ok || !speaksXDS(p) || p.Status.Phase != corev1.PodRunning {
			continue
		}
		one := versionOfProxy{Proxy: p.Name + "." + p.Namespace, Kind: "gateway", Version: "unknown"}
		if p.Labels["app"] == "ztunnel" {
			one.Kind = "ztunnel"
		}
		if b, err := l.mesh().Pod(ctx, http.MethodGet, p.Namespace, p.Name, 15020, "/stats/prometheus"); err == nil {
			if m := build.FindSubmatch(b); m != nil {
				one.Version = string(m[1])
			}
		}
		v.DataPlane = append(v.DataPlane, one)
	}
	return nil
}
