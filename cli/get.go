package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/jsonpath"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
)

// getFlags are the options of get.
type getFlags struct {
	all, labels, noHeaders, watch, watchOnly, ignore bool
	selector, fields, output, sortBy                 string
	files                                            []string
}

func newGet(s *scope) *cobra.Command {
	var f getFlags
	c := &cobra.Command{
		Use: "get (KIND [NAME...] | KIND/NAME... | -f FILE)", Short: "Show objects",
		Example: "  ambit local get pods -n istio-system\n  ambit local get svc,deploy -o wide\n  ambit local get virtualservice bookinfo -o yaml\n" +
			"  ambit local get pods -A --field-selector spec.nodeName=node-2 --sort-by .metadata.name\n" +
			"  ambit local get pods -o custom-columns=NAME:.metadata.name,IP:.status.podIP\n" +
			"  ambit local get pods -o jsonpath='{.items[?(@.status.phase==\"Running\")].metadata.name}'\n  ambit local get pods -w",
		RunE: func(c *cobra.Command, args []string) error {
			var ts []target
			var err error
			if len(f.files) > 0 {
				ts, err = s.targetsOfFiles(f.files)
			} else {
				ts, err = targets(args)
			}
			if err != nil {
				return err
			}
			return s.get(c.Context(), ts, f)
		},
	}
	c.Flags().BoolVarP(&f.all, "all-namespaces", "A", false, "objects of every namespace")
	c.Flags().StringVarP(&f.selector, "selector", "l", "", "only objects with these labels")
	c.Flags().StringVar(&f.fields, "field-selector", "", "only objects with these fields, such as status.phase=Running")
	c.Flags().StringVarP(&f.output, "output", "o", "", "wide, yaml, json, name, jsonpath=TEMPLATE or custom-columns=TITLE:PATH,...")
	c.Flags().StringVar(&f.sortBy, "sort-by", "", "order by a path, such as .metadata.creationTimestamp")
	c.Flags().BoolVar(&f.labels, "show-labels", false, "add a column of labels")
	c.Flags().BoolVar(&f.noHeaders, "no-headers", false, "leave the titles out")
	c.Flags().BoolVarP(&f.watch, "watch", "w", false, "go on with a line for each change")
	c.Flags().BoolVar(&f.watchOnly, "watch-only", false, "only a line for each change from now on")
	c.Flags().BoolVar(&f.ignore, "ignore-not-found", false, "no error for objects that do not exist")
	c.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "the objects of a file, directory or -")
	completeFlag(c, "output", words("wide", "yaml", "json", "name", "jsonpath=", "custom-columns="))
	return c
}

// targetsOfFiles are the objects that files name.
func (s *scope) targetsOfFiles(files []string) ([]target, error) {
	srcs, err := sources(s.env, files, false)
	if err != nil {
		return nil, err
	}
	var ts []target
	for _, src := range srcs {
		found, err := kinds.Decode(src.name, src.text)
		if err != nil {
			return nil, err
		}
		for _, l := range found {
			ts = append(ts, target{kinds.Of(l.Object), l.Object.GetName()})
		}
	}
	return ts, nil
}

// found is what one target led to.
type found struct {
	kind    kinds.Kind
	objects []kinds.Object
	version string
}

// check refuses options that say nothing.
func (f getFlags) check(ts []target) error {
	word, _, _ := strings.Cut(f.output, "=")
	switch {
	case !slices.Contains([]string{"", "wide", "yaml", "json", "name", "jsonpath", "custom-columns"}, word):
		return usage("unknown output %q: want wide, yaml, json, name, jsonpath=TEMPLATE or custom-columns=TITLE:PATH,...", f.output)
	case (f.watch || f.watchOnly) && slices.ContainsFunc(ts, func(t target) bool { return t.kind.Resource() != ts[0].kind.Resource() }):
		return usage("only one kind can be watched at a time")
	}
	return nil
}

func (s *scope) get(ctx context.Context, ts []target, f getFlags) error {
	if err := f.check(ts); err != nil {
		return err
	}
	groups, missing := s.find(ctx, ts, f)
	if groups == nil {
		return missing
	}
	if f.sortBy != "" {
		for _, g := range groups {
			if err := sortBy(g.objects, f.sortBy); err != nil {
				return err
			}
		}
	}
	p := &printer{getFlags: f, several: len(groups) > 1}
	shown := 0
	for _, g := range groups {
		shown += len(g.objects)
	}
	if !f.watchOnly {
		var b strings.Builder
		if err := p.show(&b, groups, ts[0].name != "" && len(ts) == 1); err != nil {
			return err
		}
		fmt.Fprint(s.env.Out, b.String())
		if shown == 0 && missing == nil && !f.watch && !p.document() {
			s.none(f, ts)
		}
	}
	if missing != nil || !f.watch && !f.watchOnly {
		return missing
	}
	return s.follow(ctx, ts, f, groups, p)
}

// none says that there is nothing to show.
func (s *scope) none(f getFlags, ts []target) {
	if f.all || !ts[0].kind.Namespaced {
		fmt.Fprintln(s.env.Err, "No resources found")
		return
	}
	fmt.Fprintf(s.env.Err, "No resources found in %s namespace.%s\n", s.namespace, s.hintNamespace())
}

// hintNamespace says so if there is no such namespace.
func (s *scope) hintNamespace() string {
	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()
	known := namesOf(ctx, s.client(), kindNamed("namespaces"), "")
	if len(known) == 0 || slices.Contains(known, s.namespace) {
		return ""
	}
	return fmt.Sprintf(" There is no namespace %q%s", s.namespace, suggest(s.namespace, known))
}

// follow shows what changes, a line each, until ctx ends.
func (s *scope) follow(ctx context.Context, ts []target, f getFlags, groups []found, p *printer) error {
	k := ts[0].kind
	sel := s.selection(f, ts[0])
	if len(ts) > 1 {
		sel.Name = ""
	}
	version := ""
	if len(groups) > 0 {
		version = groups[0].version
	}
	wanted := func(o kinds.Object) bool {
		return len(ts) == 1 || slices.ContainsFunc(ts, func(t target) bool { return t.name == o.GetName() })
	}
	for {
		if version == "" {
			var err error
			if _, version, err = s.client().ListAt(ctx, k, sel); err != nil {
				return err
			}
		}
		err := s.client().Watch(ctx, k, sel, version, func(c client.Change) error {
			if !wanted(c.Object) {
				return nil
			}
			p.noHeaders = p.noHeaders || p.titled
			var b strings.Builder
			if err := p.show(&b, []found{{kind: k, objects: []kinds.Object{c.Object}}}, true); err != nil {
				return err
			}
			_, err := io.WriteString(s.env.Out, b.String())
			return err
		})
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is how a watch ends
		case err == nil, errors.Is(err, client.ErrGone):
			version = "" // what changed meanwhile is lost
		default:
			return err
		}
	}
}

func (s *scope) selection(f getFlags, t target) client.Select {
	sel := client.Select{Namespace: s.namespace, Name: t.name, Labels: f.selector, Fields: f.fields}
	if f.all {
		sel.Namespace = ""
	}
	return sel
}

// find reads the targets, neighbours of one kind together.
func (s *scope) find(ctx context.Context, ts []target, f getFlags) ([]found, error) {
	api := s.client()
	var groups []found
	var failed []error
	for _, t := range ts {
		var g found
		if t.name != "" && !f.watch && !f.watchOnly {
			o, err := api.Get(ctx, t.kind, s.namespace, t.name)
			switch {
			case f.ignore && client.NotFound(err):
			case client.NotFound(err):
				failed = append(failed, hinted(ctx, api, err, t.kind, s.namespace, t.name))
			case err != nil:
				return nil, err
			default:
				g.objects = []kinds.Object{o}
			}
		} else {
			var err error
			if g.objects, g.version, err = api.ListAt(ctx, t.kind, s.selection(f, t)); err != nil {
				return nil, err
			}
			if t.name != "" && len(g.objects) == 0 && !f.ignore {
				_, err := api.Get(ctx, t.kind, s.namespace, t.name)
				return nil, hinted(ctx, api, err, t.kind, s.namespace, t.name)
			}
		}
		if n := len(groups); n > 0 && groups[n-1].kind.Resource() == t.kind.Resource() {
			groups[n-1].objects = append(groups[n-1].objects, g.objects...)
		} else {
			groups = append(groups, found{t.kind, g.objects, g.version})
		}
	}
	return groups, errors.Join(failed...)
}

// sortBy orders objects by the first value at a path: numbers by size, all else as text.
func sortBy(objects []kinds.Object, path string) error {
	keys := map[kinds.Object]any{}
	for _, o := range objects {
		v, err := plainValue(o)
		if err != nil {
			return err
		}
		values, err := jsonpath.Find(path, v)
		if err != nil {
			return usage("--sort-by: %w", err)
		}
		if len(values) > 0 {
			keys[o] = values[0]
		}
	}
	slices.SortStableFunc(objects, func(a, b kinds.Object) int {
		x, isX := keys[a].(float64)
		y, isY := keys[b].(float64)
		if isX && isY {
			switch {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return 0
		}
		return strings.Compare(jsonpath.Text(keys[a]), jsonpath.Text(keys[b]))
	})
	return nil
}

// plainValue is an object as its JSON reads.
func plainValue(o kinds.Object) (v any, err error) {
	raw, err := kinds.EncodeJSON(o)
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	return v, err
}

// options of a table.
func (f getFlags) options(prefix bool) table.Options {
	return table.Options{Now: time.Now(), Wide: f.output == "wide", Namespaces: f.all, Labels: f.labels, NoHeaders: f.noHeaders, Prefix: prefix}
}
