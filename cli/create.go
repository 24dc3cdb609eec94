package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
)

// createFlags are the options of create.
type createFlags struct {
	files, literals, paths []string
	cert, key, image       string
	dryRun, output, typ    string
	replicas, port         int
}

func newCreate(s *scope) *cobra.Command {
	var f createFlags
	c := &cobra.Command{
		Use:   "create (-f FILE | namespace NAME | serviceaccount NAME | configmap NAME | secret (generic|tls) NAME | deployment NAME)",
		Short: "Create objects that do not exist yet",
		Example: "  ambit local create namespace shop\n  ambit local create -f policy.yaml\n" +
			"  ambit local create secret tls shop-cert --cert shop.crt --key shop.key -n istio-system\n" +
			"  ambit local create configmap settings --from-literal colour=green --from-file settings.json\n" +
			"  ambit local create deployment web --image mccutchen/go-httpbin --dry-run=client -o yaml",
		RunE: func(c *cobra.Command, args []string) error {
			var all []source
			var err error
			switch {
			case len(f.files) > 0:
				all, err = sources(s.env, f.files, false)
			case len(args) >= 2:
				var o kinds.Object
				if o, err = f.object(args, c.ArgsLenAtDash()); err == nil {
					var text []byte
					text, err = kinds.Encode(o)
					all = []source{{"command line", text}}
				}
			default:
				err = usage("name what to create: -f FILE, or one of: %s", "namespace, serviceaccount, configmap, secret, deployment")
			}
			if err != nil {
				return err
			}
			for _, src := range all {
				if err := s.create(c, src, f); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "file, directory or - to create the objects of")
	c.Flags().StringArrayVar(&f.literals, "from-literal", nil, "KEY=VALUE of a configmap or secret; may be repeated")
	c.Flags().StringArrayVar(&f.paths, "from-file", nil, "[KEY=]FILE of a configmap or secret; may be repeated")
	c.Flags().StringVar(&f.cert, "cert", "", "file of a TLS secret's certificate")
	c.Flags().StringVar(&f.key, "key", "", "file of a TLS secret's key")
	c.Flags().StringVar(&f.typ, "type", "", "type of a generic secret")
	c.Flags().StringVar(&f.image, "image", "", "image of a deployment")
	c.Flags().IntVar(&f.replicas, "replicas", 1, "how many pods a deployment has")
	c.Flags().IntVar(&f.port, "port", 0, "port that a deployment's container opens")
	c.Flags().StringVar(&f.dryRun, "dry-run", "none", "client: only show what would be sent; server: check it there")
	c.Flags().StringVarP(&f.output, "output", "o", "", "yaml, json or name")
	completeFlag(c, "dry-run", words("none", "client", "server"))
	completeFlag(c, "output", words("yaml", "json", "name"))
	c.ValidArgsFunction = cobra.CompletionFunc(words("namespace", "serviceaccount", "configmap", "secret", "deployment"))
	return c
}

// create applies a text all of whose objects are new.
func (s *scope) create(c *cobra.Command, src source, f createFlags) error {
	if !slices.Contains([]string{"none", "client", "server"}, f.dryRun) {
		return usage("--dry-run=%s: want none, client or server", f.dryRun)
	}
	decoded, err := kinds.Decode(src.name, src.text)
	if err != nil {
		return err
	}
	api := s.client()
	for _, l := range decoded {
		k := kinds.Of(l.Object)
		if l.Object.GetNamespace() == "" && k.Namespaced {
			l.Object.SetNamespace(s.namespace)
		}
		if f.dryRun == "client" {
			continue
		}
		switch _, err := api.Get(c.Context(), k, l.Object.GetNamespace(), l.Object.GetName()); {
		case err == nil:
			return &client.StatusError{Code: 409, Reason: "AlreadyExists", Message: fmt.Sprintf("%s %q already exists; use apply to change it", k.Plural, l.Object.GetName())}
		case !client.NotFound(err):
			return err
		}
	}
	if f.dryRun != "client" {
		results, err := api.Apply(c.Context(), src.name, s.namespace, f.dryRun == "server", src.text)
		if err != nil {
			return err
		}
		s.warn(results)
	}
	if f.output != "" {
		p := &printer{getFlags: getFlags{output: f.output}}
		var b strings.Builder
		groups := []found{}
		for _, l := range decoded {
			groups = append(groups, found{kind: kinds.Of(l.Object), objects: []kinds.Object{l.Object}})
		}
		if err := p.show(&b, groups, len(decoded) == 1); err != nil {
			return err
		}
		fmt.Fprint(s.env.Out, b.String())
		return nil
	}
	how := map[string]string{"none": "created", "client": "created (dry run)", "server": "created (server dry run)"}[f.dryRun]
	for _, l := range decoded {
		k := kinds.Of(l.Object)
		fmt.Fprintf(s.env.Out, "%s %s\n", named(k.Kind, k.Group, l.Object.GetName()), how)
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
