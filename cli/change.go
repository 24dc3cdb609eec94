package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
)

func yamlOf(json []byte) ([]byte, error) { return yaml.JSONToYAML(json) }

// named is kubectl's way: deployment.apps/web.
func named(kind, group, name string) string {
	kind = strings.ToLower(kind)
	if group != "" {
		kind += "." + group
	}
	return kind + "/" + name
}

// located is a target and its namespace.
type located struct {
	target
	namespace string
}

// expand turns kinds without a name into the objects that a selector or --all admits.
func (s *scope) expand(ctx context.Context, ts []target, selector string, all bool) ([]located, error) {
	var out []located
	for _, t := range ts {
		if t.name != "" {
			out = append(out, located{t, s.namespace})
			continue
		}
		if selector == "" && !all {
			return nil, errors.New("name the objects, or give -l SELECTOR or --all")
		}
		objects, err := s.client().List(ctx, t.kind, s.namespace, selector)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			out = append(out, located{target{t.kind, o.GetName()}, o.GetNamespace()})
		}
	}
	return out, nil
}

// newMark is label and annotate: KIND NAME key=value... key-...
func newMark(s *scope, verb string) *cobra.Command {
	var overwrite, all bool
	var selector string
	field, done := "labels", "labeled"
	if verb == "annotate" {
		field, done = "annotations", "annotated"
	}
	c := &cobra.Command{
		Use: verb + " KIND NAME KEY=VALUE... KEY-...", Short: strings.ToUpper(verb[:1]) + verb[1:] + " objects",
		Example: "  ambit local label namespace default istio.io/dataplane-mode=ambient",
		RunE: func(c *cobra.Command, args []string) error {
			set := map[string]any{}
			var names []string
			for _, a := range args {
				key, value, ok := strings.Cut(a, "=")
				switch {
				case ok:
					set[key] = value
				case strings.HasSuffix(a, "-") && len(names) > 0:
					set[strings.TrimSuffix(a, "-")] = nil
				default:
					names = append(names, a)
				}
			}
			if len(set) == 0 {
				return fmt.Errorf("at least one %s is required, as KEY=VALUE, or KEY- to remove it", strings.TrimSuffix(field, "s"))
			}
			given, err := targets(names)
			if err != nil {
				return err
			}
			ts, err := s.expand(c.Context(), given, selector, all)
			if err != nil {
				return err
			}
			return s.mark(c.Context(), ts, field, done, set, overwrite)
		},
	}
	c.Flags().BoolVar(&overwrite, "overwrite", false, "change values that are there")
	c.Flags().BoolVar(&all, "all", false, "every object of the kind")
	c.Flags().StringVarP(&selector, "selector", "l", "", "objects with these labels")
	return c
}

func (s *scope) mark(ctx context.Context, ts []located, field, done string, set map[string]any, overwrite bool) error {
	api := s.client()
	for _, t := range ts {
		o, err := api.Get(ctx, t.kind, t.namespace, t.name)
		if err != nil {
			return hinted(ctx, api, err, t.kind, t.namespace, t.name)
		}
		have := o.GetLabels()
		if field == "annotations" {
			have = o.GetAnnotations()
		}
		same, removed := true, true
		for k, v := range set {
			old, ok := have[k]
			if v != nil && ok && old != v && !overwrite {
				return fmt.Errorf("'%s' already has a value (%s), and --overwrite is false", k, old)
			}
			same = same && (v == nil && !ok || v != nil && ok && old == v)
			removed = removed && v == nil
		}
		how := done
		switch {
		case same:
			how = "not " + done
		case removed:
			how = "un" + done
		}
		if !same {
			if _, err := api.Patch(ctx, t.kind, t.namespace, t.name, map[string]any{"metadata": map[string]any{field: set}}); err != nil {
				return err
			}
		}
		fmt.Fprintf(s.env.Out, "%s %s\n", named(t.kind.Kind, t.kind.Group, t.name), how)
	}
	return nil
}

func newScale(s *scope) *cobra.Command {
	var replicas int
	c := &cobra.Command{
		Use: "scale KIND/NAME --replicas=N", Short: "Change how many pods a workload has", Args: cobra.MinimumNArgs(1),
		Example: "  ambit local scale deploy/sleep --replicas 3",
		RunE: func(c *cobra.Command, args []string) error {
			ts, err := targets(args)
			if err != nil {
				return err
			}
			if replicas < 0 {
				return errors.New("the --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0")
			}
			for _, t := range ts {
				if _, err := s.client().Patch(c.Context(), t.kind, s.namespace, t.name, map[string]any{"spec": map[string]any{"replicas": replicas}}); err != nil {
					return hinted(c.Context(), s.client(), err, t.kind, s.namespace, t.name)
				}
				fmt.Fprintf(s.env.Out, "%s scaled\n", named(t.kind.Kind, t.kind.Group, t.name))
			}
			return nil
		},
	}
	c.Flags().IntVar(&replicas, "replicas", -1, "how many")
	return c
}

func newRollout(s *scope) *cobra.Command {
	c := group(&cobra.Command{Use: "rollout", Short: "Restart a workload's pods, or wait for them"})
	restart := &cobra.Command{
		Use: "restart KIND/NAME", Short: "Replace every pod by a new one", Args: cobra.MinimumNArgs(1),
		Example: "  ambit local rollout restart deploy/sleep\n  ambit local rollout restart ds/ztunnel -n istio-system",
		RunE: func(c *cobra.Command, args []string) error {
			given, err := targets(args)
			if err != nil {
				return err
			}
			ts, err := s.expand(c.Context(), given, "", true)
			if err != nil {
				return err
			}
			at := map[string]any{"kubectl.kubernetes.io/restartedAt": time.Now().Format(time.RFC3339Nano)}
			patch := map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": at}}}}
			for _, t := range ts {
				if _, err := s.client().Patch(c.Context(), t.kind, s.namespace, t.name, patch); err != nil {
					return hinted(c.Context(), s.client(), err, t.kind, s.namespace, t.name)
				}
				fmt.Fprintf(s.env.Out, "%s restarted\n", named(t.kind.Kind, t.kind.Group, t.name))
			}
			return nil
		},
	}
	var timeout time.Duration
	status := &cobra.Command{
		Use: "status KIND/NAME", Short: "Wait until a workload's pods are up to date and ready", Args: cobra.MinimumNArgs(1),
		Example: "  ambit local rollout status deploy/sleep --timeout 1m",
		RunE: func(c *cobra.Command, args []string) error {
			ts, err := targets(args)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			for _, t := range ts {
				if _, err := s.client().Get(ctx, t.kind, s.namespace, t.name); err != nil {
					return hinted(ctx, s.client(), err, t.kind, s.namespace, t.name)
				}
				said := ""
				tell := func(o kinds.Object) (bool, string) {
					done, why := client.RolledOut(o)
					if !done && why != said {
						fmt.Fprintf(s.env.Out, "Waiting for %s %q rollout to finish: %s...\n", rolloutWord(t.kind), t.name, why)
						said = why
					}
					return done, why
				}
				if err := s.client().Until(ctx, t.kind, s.namespace, t.name, tell); err != nil {
					return err
				}
				fmt.Fprintf(s.env.Out, "%s %q successfully rolled out\n", rolloutWord(t.kind), t.name)
			}
			return nil
		},
	}
	status.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	c.AddCommand(restart, status)
	return c
}

func rolloutWord(k kinds.Kind) string {
	if k.New != nil {
		if _, ok := k.New().(*appsv1.DaemonSet); ok {
			return "daemon set"
		}
	}
	return strings.ToLower(k.Kind)
}
