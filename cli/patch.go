package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

func newPatch(s *scope) *cobra.Command {
	var patch, file, how string
	c := &cobra.Command{
		Use: "patch KIND NAME (-p PATCH | --patch-file FILE)", Short: "Change a part of an object", Args: cobra.RangeArgs(1, 2),
		Long: "Change a part of an object by a patch in JSON or YAML. By default it is merged in: of the kinds of Kubernetes lists are\n" +
			"merged by their keys (strategic), of others replaced whole (merge, RFC 7386). json takes a list of operations (RFC 6902).",
		Example: "  ambit local patch deploy sleep -p '{\"spec\": {\"replicas\": 2}}'\n" +
			"  ambit local patch vs bookinfo --type json -p '[{\"op\": \"remove\", \"path\": \"/spec/http/0\"}]'",
		RunE: func(c *cobra.Command, args []string) error {
			ts, err := targets(args)
			if err != nil {
				return err
			}
			if ts[0].name == "" || (patch == "") == (file == "") {
				return usage("name one object and give -p PATCH or --patch-file FILE")
			}
			text := []byte(patch)
			if file != "" {
				if text, err = readDumpFile(s.env, file); err != nil {
					return err
				}
			}
			for _, t := range ts {
				kind := "application/" + how + "-patch+json"
				switch {
				case how == "strategic" || how == "" && !strings.HasSuffix(t.kind.Group, "istio.io") && t.kind.Group != "gateway.networking.k8s.io":
					kind = "application/strategic-merge-patch+json"
				case how == "":
					kind = "application/merge-patch+json"
				case how != "merge" && how != "json":
					return usage("--type=%s: want strategic, merge or json", how)
				}
				body, err := yaml.YAMLToJSON(text)
				if err != nil {
					return fmt.Errorf("the patch: %w", err)
				}
				if _, err := s.client().PatchAs(c.Context(), t.kind, s.namespace, t.name, kind, body); err != nil {
					return hinted(c.Context(), s.client(), err, t.kind, s.namespace, t.name)
				}
				fmt.Fprintf(s.env.Out, "%s patched\n", named(t.kind.Kind, t.kind.Group, t.name))
			}
			return nil
		},
	}
	c.Flags().StringVarP(&patch, "patch", "p", "", "what to change")
	c.Flags().StringVar(&file, "patch-file", "", "a file with what to change")
	c.Flags().StringVar(&how, "type", "", "strategic, merge or json")
	completeFlag(c, "type", words("strategic", "merge", "json"))
	return c
}
