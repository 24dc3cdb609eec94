package ztunnel

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
)

// dumper writes one JSON object key by key, and a list entry by entry. It keeps the first error.
type dumper struct {
	w   io.Writer
	n   int // keys
	err error
}

func (d *dumper) put(s string) {
	if d.err == nil {
		_, d.err = io.WriteString(d.w, s)
	}
}

func (d *dumper) key(name string) {
	if d.n == 0 {
		d.put("{\n")
	} else {
		d.put(",\n")
	}
	d.n++
	d.put("  \"" + name + "\": ")
}

func (d *dumper) json(v any, indent string) {
	if d.err != nil {
		return
	}
	b, err := json.MarshalIndent(v, indent, "  ")
	if err != nil {
		d.err = fmt.Errorf("write the dump: %w", err)
		return
	}
	_, d.err = d.w.Write(b)
}

func (d *dumper) value(name string, v any) {
	d.key(name)
	d.json(v, "  ")
}

// list writes a list of what shape makes of its entries.
func list[T, V any](d *dumper, name string, all iter.Seq[T], shape func(T) V) {
	d.key(name)
	sep := "["
	for x := range all {
		d.put(sep + "\n    ")
		d.json(shape(x), "    ")
		sep = ","
	}
	if sep == "[" {
		d.put("[]")
		return
	}
	d.put("\n  ]")
}

func (d *dumper) end() error {
	d.put("\n}\n")
	return d.err
}
