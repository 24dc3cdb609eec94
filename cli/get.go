package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/jsonpath"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/table"
)

// getFlags are the options of get.
type getFlags struct {
	all, labels, noHeaders, watch bool
	selector, output              string
}

func newGet(s *scope) *cobra.Command {
	var f getFlags
	c := &cobra.Command{
		Use: "get KIND [NAME...]", Short: "Show objects",
		Example: "  ambit local get pods -n istio-system\n  ambit local get svc,deploy -o wide\n  ambit local get virtualservice bookinfo -o yaml",
		RunE: func(c *cobra.Command, args []string) error {
			ts, err := targets(args)
			if err != nil {
				return err
			}
			return s.get(c.Context(), ts, f)
		},
	}
	c.Flags().BoolVarP(&f.all, "all-namespaces", "A", false, "objects of every namespace")
	c.Flags().StringVarP(&f.selector, "selector", "l", "", "only objects with these labels")
	c.Flags().StringVarP(&f.output, "output", "o", "", "wide, yaml, json, name or jsonpath=TEMPLATE")
	c.Flags().BoolVar(&f.labels, "show-labels", false, "add a column of labels")
	c.Flags().BoolVar(&f.noHeaders, "no-headers", false, "leave the titles out")
	c.Flags().BoolVarP(&f.watch, "watch", "w", false, "show the table again whenever it changes")
	return c
}

// found is what one target led to.
type found struct {
	kind    kinds.Kind
	objects []kinds.Object
}

func (s *scope) get(ctx context.Context, ts []target, f getFlags) error {
	template, isPath := strings.CutPrefix(f.output, "jsonpath=")
	if !isPath && !slices.Contains([]string{"", "wide", "yaml", "json", "name"}, f.output) {
		return fmt.Errorf("unknown output %q: want wide, yaml, json, name or jsonpath=TEMPLATE", f.output)
	}
	last := ""
	for first := true; ; first = false {
		var b strings.Builder
		groups, err := s.find(ctx, ts, f)
		if err != nil {
			return err
		}
		single := ts[0].name != "" && len(ts) == 1
		if isPath {
			err = pick(&b, groups, template, single)
		} else {
			err = show(&b, groups, f, single)
		}
		if err != nil {
			return err
		}
		switch {
		case !first && b.String() == last:
		case isPath:
			fmt.Fprint(s.env.Out, b.String())
		case b.Len() == 0 && (f.all || !ts[0].kind.Namespaced):
			fmt.Fprintln(s.env.Err, "No resources found")
		case b.Len() == 0:
			fmt.Fprintf(s.env.Err, "No resources found in %s namespace.\n", s.namespace)
		default:
			fmt.Fprint(s.env.Out, b.String())
		}
		if last = b.String(); !f.watch {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// find reads the targets, neighbours of one kind together.
func (s *scope) find(ctx context.Context, ts []target, f getFlags) ([]found, error) {
	api := s.client()
	ns := s.namespace
	if f.all {
		ns = ""
	}
	var groups []found
	for _, t := range ts {
		var objects []kinds.Object
		if t.name != "" {
			o, err := api.Get(ctx, t.kind, s.namespace, t.name)
			if err != nil {
				return nil, err
			}
			objects = []kinds.Object{o}
		} else {
			var err error
			if objects, err = api.List(ctx, t.kind, ns, f.selector); err != nil {
				return nil, err
			}
			slices.SortFunc(objects, func(a, b kinds.Object) int {
				return strings.Compare(a.GetNamespace()+"/"+a.GetName(), b.GetNamespace()+"/"+b.GetName())
			})
		}
		if n := len(groups); n > 0 && groups[n-1].kind.Resource() == t.kind.Resource() {
			groups[n-1].objects = append(groups[n-1].objects, objects...)
		} else {
			groups = append(groups, found{t.kind, objects})
		}
	}
	return groups, nil
}

func show(b *strings.Builder, groups []found, f getFlags, single bool) error {
	switch f.output {
	case "yaml", "json":
		return dump(b, groups, f.output, single)
	case "name":
		for _, g := range groups {
			for _, o := range g.objects {
				fmt.Fprintln(b, table.Name(g.kind, o))
			}
		}
		return nil
	}
	for _, g := range groups {
		if len(g.objects) == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		opt := table.Options{
			Now: time.Now(), Wide: f.output == "wide", Namespaces: f.all, Labels: f.labels, NoHeaders: f.noHeaders, Prefix: len(groups) > 1,
		}
		if err := table.Write(b, g.kind, g.objects, opt); err != nil {
			return err
		}
	}
	return nil
}

// pick writes what a jsonpath template takes of one object, or of a List of several.
func pick(b *strings.Builder, groups []found, template string, single bool) error {
	text, err := document(groups, single)
	if err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	out, err := jsonpath.Expand(template, v)
	b.WriteString(out)
	return err
}

// document is the JSON of one object as itself and of several as a List.
func document(groups []found, single bool) ([]byte, error) {
	items := []json.RawMessage{}
	for _, g := range groups {
		for _, o := range g.objects {
			raw, err := kinds.EncodeJSON(o)
			if err != nil {
				return nil, err
			}
			items = append(items, raw)
		}
	}
	var v any = map[string]any{"apiVersion": "v1", "kind": "List", "items": items}
	if single {
		v = items[0]
	}
	return json.MarshalIndent(v, "", "    ")
}

// dump writes the objects as YAML or JSON.
func dump(b *strings.Builder, groups []found, format string, single bool) error {
	if single && format == "yaml" {
		text, err := kinds.Encode(groups[0].objects[0])
		b.Write(text)
		return err
	}
	text, err := document(groups, single)
	if err != nil {
		return err
	}
	if format == "yaml" {
		if text, err = yamlOf(text); err != nil {
			return err
		}
	}
	b.Write(text)
	if format == "json" {
		b.WriteByte('\n')
	}
	return nil
}
