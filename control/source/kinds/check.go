package kinds

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
)

// checker compares trees with Go types and collects what does not fit.
type checker struct {
	file     string
	secret   bool // values are not told
	problems Problems
	fields   map[reflect.Type]map[string]reflect.Type
}

// maxProblems ends the search in a file that is wrong everywhere.
const maxProblems = 200

func (c *checker) fail(line int, path, what, hint string) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, Problem{File: c.file, Line: line, Path: path, What: what, Hint: hint})
	}
}

func (c *checker) want(n *node, path, wanted string) {
	hint := ""
	got := n.kind.String()
	if n.kind == scalar {
		got = quote(n.text, c.secret)
		if wanted == "a string" {
			hint = "put it in quotes"
			got += fmt.Sprintf(" (%s)", typeName(n.value))
		}
	}
	c.fail(n.line, path, "want "+wanted+", not "+got, hint)
}

// quote is how a value is told in a complaint: of a Secret, not at all.
func quote(text string, secret bool) string {
	if secret {
		return "what is there"
	}
	return strconv.Quote(text)
}

func typeName(v any) string {
	switch v.(type) {
	case bool:
		return "true or false"
	case string:
		return "text"
	}
	return "a number"
}

// value checks that n can be decoded into t.
func (c *checker) value(n *node, t reflect.Type, path string) {
	if n.kind == null {
		return
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	ptr := reflect.PointerTo(t)
	if ptr.Implements(reflect.TypeFor[proto.Message]()) {
		c.message(n, reflect.New(t).Interface().(proto.Message).ProtoReflect().Descriptor(), path)
		return
	}
	if ptr.Implements(reflect.TypeFor[json.Unmarshaler]()) || t == reflect.TypeFor[[]byte]() {
		c.leaf(n, t, path)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		c.structure(n, t, path)
	case reflect.Slice, reflect.Array:
		if n.kind != list {
			c.want(n, path, "a list")
			return
		}
		for i, item := range n.items {
			c.value(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.Map:
		if n.kind != mapping {
			c.want(n, path, "a map")
			return
		}
		for _, k := range n.keys {
			c.value(k.value, t.Elem(), join(path, k.name))
		}
	case reflect.Interface: // anything goes
	default:
		c.basic(n, t.Kind(), path)
	}
}

// leaf tries the type's own decoder on one value.
func (c *checker) leaf(n *node, t reflect.Type, path string) {
	data, err := json.Marshal(n.plainValue())
	if err == nil {
		err = json.Unmarshal(data, reflect.New(t).Interface())
	}
	if err != nil {
		c.fail(n.line, path, fmt.Sprintf("%s does not fit: %v", quote(n.text, c.secret), err), "")
	}
}

func (c *checker) structure(n *node, t reflect.Type, path string) {
	if n.kind != mapping {
		c.want(n, path, "a map")
		return
	}
	fields := c.fieldsOf(t)
	for _, k := range n.keys {
		ft, ok := fields[k.name]
		if !ok {
			names := make([]string, 0, len(fields))
			for name := range fields {
				names = append(names, name)
			}
			c.unknown(k, path, names)
			continue
		}
		c.value(k.value, ft, join(path, k.name))
	}
}

func (c *checker) unknown(k key, path string, known []string) {
	slices.Sort(known)
	hint := ""
	if near, ok := nearest(k.name, known); ok {
		hint = fmt.Sprintf("did you mean %q?", near)
	} else if len(known) > 0 && len(known) <= 12 {
		hint = "known: " + strings.Join(known, ", ")
	}
	c.fail(k.line, path, fmt.Sprintf("unknown field %q", k.name), hint)
}

// fieldsOf lists a struct's JSON fields, those of embedded structs included.
func (c *checker) fieldsOf(t reflect.Type) map[string]reflect.Type {
	if f, ok := c.fields[t]; ok {
		return f
	}
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "":
			ft := f.Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			for n, inner := range c.fieldsOf(ft) {
				if _, there := out[n]; !there {
					out[n] = inner
				}
			}
		case !f.IsExported():
		case name != "":
			out[name] = f.Type
		default:
			out[f.Name] = f.Type
		}
	}
	if c.fields == nil {
		c.fields = map[reflect.Type]map[string]reflect.Type{}
	}
	c.fields[t] = out
	return out
}

// basic checks a scalar. YAML 1.1's yes and no count as booleans where one is wanted, as kubectl has it.
func (c *checker) basic(n *node, k reflect.Kind, path string) {
	if n.kind != scalar {
		c.want(n, path, basicName(k))
		return
	}
	switch k {
	case reflect.String:
		if _, ok := n.value.(string); !ok {
			c.want(n, path, "a string")
		}
	case reflect.Bool:
		if n.plain {
			switch strings.ToLower(n.text) {
			case "yes", "on", "y":
				n.value = true
			case "no", "off", "n":
				n.value = false
			}
		}
		if _, ok := n.value.(bool); !ok {
			c.want(n, path, "true or false")
		}
	case reflect.Float32, reflect.Float64:
		switch n.value.(type) {
		case int64, uint64, float64:
		default:
			c.want(n, path, "a number")
		}
	default:
		if !fits(n.value, k) {
			c.want(n, path, basicName(k))
		}
	}
}

func basicName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative"
	}
	return "a whole number"
}

// fits reports whether a whole number has its place in an integer of kind k.
func fits(v any, k reflect.Kind) bool {
	bits := map[reflect.Kind]int{
		reflect.Int8: 8, reflect.Int16: 16, reflect.Int32: 32, reflect.Int: 64, reflect.Int64: 64,
		reflect.Uint8: 8, reflect.Uint16: 16, reflect.Uint32: 32, reflect.Uint: 64, reflect.Uint64: 64,
	}[k]
	unsigned := k >= reflect.Uint && k <= reflect.Uint64
	switch i := v.(type) {
	case int64:
		if unsigned {
			return i >= 0 && (bits == 64 || i < 1<<bits)
		}
		return bits == 64 || (i >= -(1<<(bits-1)) && i < 1<<(bits-1))
	case uint64:
		return unsigned && bits == 64
	}
	return false
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
