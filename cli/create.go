package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
)

func newCreate(s *scope) *cobra.Command {
	var files []string
	c := &cobra.Command{
		Use: "create (-f FILE | namespace NAME | serviceaccount NAME)", Short: "Create objects that do not exist yet",
		Example: "  ambit local create namespace shop\n  ambit local create -f policy.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			var all []source
			switch {
			case len(files) > 0:
				var err error
				if all, err = sources(s.env, files, false); err != nil {
					return err
				}
			case len(args) == 2:
				k, ok := kinds.Find(args[0])
				if !ok || k.Group != "" || k.Kind != "Namespace" && k.Kind != "ServiceAccount" {
					return fmt.Errorf("create %s: only a namespace or a serviceaccount is created by name; write the rest as YAML and use -f", args[0])
				}
				o := k.New()
				o.GetObjectKind().SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(k.Kind))
				o.SetName(args[1])
				text, err := kinds.Encode(o)
				if err != nil {
					return err
				}
				all = []source{{"command line", text}}
			default:
				return errors.New("name what to create: -f FILE, namespace NAME or serviceaccount NAME")
			}
			for _, src := range all {
				if err := s.create(c, src); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringSliceVarP(&files, "filename", "f", nil, "file, directory or - to create the objects of")
	return c
}

// create applies a text all of whose objects are new.
func (s *scope) create(c *cobra.Command, src source) error {
	found, err := kinds.Decode(src.name, src.text)
	if err != nil {
		return err
	}
	api := s.client()
	for _, l := range found {
		k, ns := kinds.Of(l.Object), l.Object.GetNamespace()
		if ns == "" {
			ns = s.namespace
		}
		switch _, err := api.Get(c.Context(), k, ns, l.Object.GetName()); {
		case err == nil:
			return &client.StatusError{Code: 409, Reason: "AlreadyExists", Message: fmt.Sprintf("%s %q already exists; use apply to change it", k.Plural, l.Object.GetName())}
		case !client.NotFound(err):
			return err
		}
	}
	results, err := api.Apply(c.Context(), src.name, s.namespace, false, src.text)
	if err != nil {
		return err
	}
	for _, r := range results {
		fmt.Fprintf(s.env.Out, "%s %s\n", named(r.Kind, r.Group, r.Name), r.Result)
	}
	return nil
}

func newKinds(s *scope) *cobra.Command {
	return &cobra.Command{
		Use: "api-resources", Short: "List the kinds of objects that there are", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			rows := [][]string{{"NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"}}
			for _, k := range kinds.All() {
				short := ""
				for i, n := range k.Short {
					if i > 0 {
						short += ","
					}
					short += n
				}
				rows = append(rows, []string{k.Plural, short, k.APIVersion(), fmt.Sprint(k.Namespaced), k.Kind})
			}
			return table.Align(s.env.Out, rows)
		},
	}
}

func newPatch(s *scope) *cobra.Command {
	var patch, how string
	c := &cobra.Command{
		Use: "patch KIND NAME -p PATCH", Short: "Merge JSON or YAML into an object", Args: cobra.RangeArgs(1, 2),
		Example: `  ambit local patch deploy sleep -p '{"spec": {"replicas": 2}}'`,
		RunE: func(c *cobra.Command, args []string) error {
			if how != "merge" {
				return fmt.Errorf("--type=%s: only merge is known here", how)
			}
			ts, err := targets(args)
			if err != nil {
				return err
			}
			if ts[0].name == "" || patch == "" {
				return errors.New("name one object and give -p PATCH")
			}
			var v map[string]any
			if err := yamlTo([]byte(patch), &v); err != nil {
				return fmt.Errorf("the patch: %w", err)
			}
			for _, t := range ts {
				if _, err := s.client().Patch(c.Context(), t.kind, s.namespace, t.name, v); err != nil {
					return err
				}
				fmt.Fprintf(s.env.Out, "%s patched\n", named(t.kind.Kind, t.kind.Group, t.name))
			}
			return nil
		},
	}
	c.Flags().StringVarP(&patch, "patch", "p", "", "what to merge into the object")
	c.Flags().StringVar(&how, "type", "merge", "merge (RFC 7386), which replaces lists whole")
	return c
}
