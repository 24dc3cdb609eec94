package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/cli/internal/jsonpath"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/table"
)

// printer shows objects as -o wants them, in one portion or, followed, in several.
type printer struct {
	getFlags
	several bool // kinds
	titled  bool
	columns table.Printer
}

// document tells whether the output is one document, which an empty list is too.
func (p *printer) document() bool { return p.output == "yaml" || p.output == "json" }

func (p *printer) show(b *strings.Builder, groups []found, single bool) error {
	word, rest, _ := strings.Cut(p.output, "=")
	switch word {
	case "yaml", "json":
		return dump(b, groups, p.output, single && len(groups[0].objects) == 1)
	case "jsonpath":
		return pick(b, groups, rest, single && len(groups[0].objects) == 1)
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
		p.titled = true
		var err error
		if word == "custom-columns" {
			err = p.custom(b, g.objects, rest)
		} else if p.several {
			err = table.Write(b, g.kind, g.objects, p.options(true))
		} else {
			err = p.columns.Write(b, g.kind, g.objects, p.options(false))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// custom shows TITLE:PATH,... of each object.
func (p *printer) custom(b *strings.Builder, objects []kinds.Object, spec string) error {
	var head, paths []string
	for _, column := range strings.Split(spec, ",") {
		title, path, ok := strings.Cut(column, ":")
		if !ok || title == "" || path == "" {
			return usage("custom-columns: %q: want TITLE:PATH, such as NAME:.metadata.name", column)
		}
		head, paths = append(head, title), append(paths, path)
	}
	var rows [][]string
	if !p.noHeaders {
		rows = append(rows, head)
	}
	for _, o := range objects {
		v, err := plainValue(o)
		if err != nil {
			return err
		}
		var row []string
		for _, path := range paths {
			values, err := jsonpath.Find(path, v)
			if err != nil {
				return usage("custom-columns: %w", err)
			}
			cell := []string{}
			for _, x := range values {
				cell = append(cell, jsonpath.Text(x))
			}
			if len(cell) == 0 {
				cell = []string{"<none>"}
			}
			row = append(row, strings.Join(cell, ","))
		}
		rows = append(rows, row)
	}
	return p.columns.Rows(b, rows)
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
