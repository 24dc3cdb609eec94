// Package jsonpath expands the templates of kubectl's -o jsonpath that pick values out of objects.
//
// Known are text, {.field.field}, {['field']}, {[0]}, {[-1]}, {[*]}, {.*}, {"text"}, {range PATH}…{end}, {@} and {$}. A field that is
// not there gives nothing, as with kubectl.
package jsonpath

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Expand writes a template over a value that was read from JSON.
func Expand(template string, v any) (string, error) {
	nodes, rest, err := parse(template, false)
	if err != nil {
		return "", fmt.Errorf("jsonpath %s: %w", template, err)
	}
	if rest != "" {
		return "", fmt.Errorf("jsonpath %s: {end} without {range}", template)
	}
	var b strings.Builder
	for _, n := range nodes {
		n.write(&b, v, v)
	}
	return b.String(), nil
}

// node is text, a path, or a range over a path.
type node struct {
	text  string
	path  []step
	root  bool // the path begins at the document, even in a range
	body  []node
	plain bool // text
	loop  bool
}

// step goes from a value to some below it.
type step struct {
	field string
	index int
	kind  byte // f: field, i: index, *: all, r: everything below, s: slice, ?: filter
	upto  *int // of a slice
	test  *test
}

func (n node) write(b *strings.Builder, root, v any) {
	if n.plain {
		b.WriteString(n.text)
		return
	}
	if n.root {
		v = root
	}
	found := []any{v}
	for _, s := range n.path {
		var next []any
		for _, f := range found {
			next = append(next, s.from(f)...)
		}
		found = next
	}
	for i, f := range found {
		if n.loop {
			for _, inner := range n.body {
				inner.write(b, root, f)
			}
			continue
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(text(f))
	}
}

func (s step) from(v any) []any {
	switch s.kind {
	case 'r':
		return append([]any{v}, below(v, 0)...)
	case '?':
		return s.test.admits(v)
	}
	switch v := v.(type) {
	case map[string]any:
		if s.kind == '*' {
			var all []any
			for _, k := range slices.Sorted(maps.Keys(v)) {
				all = append(all, v[k])
			}
			return all
		}
		if f, ok := v[s.field]; ok && s.kind == 'f' {
			return []any{f}
		}
	case []any:
		if s.kind == '*' {
			return v
		}
		if s.kind == 's' {
			return s.slice(v)
		}
		at := s.index
		if at < 0 {
			at += len(v)
		}
		if s.kind == 'i' && at >= 0 && at < len(v) {
			return v[at : at+1]
		}
	}
	return nil
}

func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// parse reads nodes up to the end of the text, or, in a range, to its {end}. rest begins after an {end}.
func parse(t string, inRange bool) (nodes []node, rest string, err error) {
	for t != "" {
		before, after, ok := strings.Cut(t, "{")
		if before != "" {
			nodes = append(nodes, node{plain: true, text: before})
		}
		if !ok {
			break
		}
		inside, after, ok := closing(after)
		if !ok {
			return nil, "", fmt.Errorf("a { is not closed")
		}
		t = after
		inside = strings.TrimSpace(inside)
		switch {
		case inside == "end":
			if !inRange {
				return nil, "", fmt.Errorf("{end} without {range}")
			}
			return nodes, t, nil
		case strings.HasPrefix(inside, "range "):
			n := node{loop: true}
			if n.path, n.root, err = steps(strings.TrimSpace(inside[len("range "):])); err != nil {
				return nil, "", err
			}
			if n.body, t, err = parse(t, true); err != nil {
				return nil, "", err
			}
			nodes = append(nodes, n)
		case strings.HasPrefix(inside, `"`):
			s, err := strconv.Unquote(inside)
			if err != nil {
				return nil, "", fmt.Errorf("%s is not a text in quotes", inside)
			}
			nodes = append(nodes, node{plain: true, text: s})
		default:
			n := node{}
			if n.path, n.root, err = steps(inside); err != nil {
				return nil, "", err
			}
			nodes = append(nodes, n)
		}
	}
	if inRange {
		return nil, "", fmt.Errorf("{range} without {end}")
	}
	return nodes, "", nil
}

// closing cuts at the } that ends an expression, not at one in quotes.
func closing(t string) (inside, rest string, ok bool) {
	var quote byte
	for i := 0; i < len(t); i++ {
		switch c := t[i]; {
		case quote != 0 && c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '}':
			return t[:i], t[i+1:], true
		}
	}
	return "", "", false
}

func steps(p string) (all []step, root bool, err error) {
	whole := p
	if rest, ok := strings.CutPrefix(p, "$"); ok {
		p, root = rest, true
	} else {
		p = strings.TrimPrefix(p, "@")
	}
	for p != "" {
		switch p[0] {
		case '.':
			if rest, ok := strings.CutPrefix(p, ".."); ok {
				all = append(all, step{kind: 'r'})
				p = rest
				if !strings.HasPrefix(p, "[") {
					p = "." + p
				}
				if p == "." {
					return nil, false, fmt.Errorf("%s: a field's name is missing", whole)
				}
				continue
			}
			name, rest := field(p[1:])
			switch {
			case name == "*":
				all = append(all, step{kind: '*'})
			case name != "":
				all = append(all, step{kind: 'f', field: name})
			case rest == "" && len(all) == 0: // {.} is the value itself
			case strings.HasPrefix(rest, "["): // {.['a']}
			default:
				return nil, false, fmt.Errorf("%s: a field's name is missing", whole)
			}
			p = rest
		case '[':
			end := closed(p)
			if end < 0 {
				return nil, false, fmt.Errorf("%s: a [ is not closed", whole)
			}
			s, err := subscript(p[1:end])
			if err != nil {
				return nil, false, fmt.Errorf("%s: %w", whole, err)
			}
			all, p = append(all, s), p[end+1:]
		default:
			return nil, false, fmt.Errorf("%s: want .field or [index]", whole)
		}
	}
	return all, root, nil
}

// field reads a name; a backslash takes a dot or another sign of ours into it.
func field(p string) (name, rest string) {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '\\' && i+1 < len(p):
			i++
			b.WriteByte(p[i])
		case c == '.' || c == '[':
			return b.String(), p[i:]
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

func subscript(s string) (step, error) {
	s = strings.TrimSpace(s)
	if s == "*" {
		return step{kind: '*'}, nil
	}
	if len(s) >= 2 && (s[0] == '\'' || s[0] == '"') && s[len(s)-1] == s[0] {
		return step{kind: 'f', field: strings.ReplaceAll(s[1:len(s)-1], `\`, "")}, nil
	}
	if strings.HasPrefix(s, "?") {
		return filter(s)
	}
	if from, to, ok := strings.Cut(s, ":"); ok {
		return sliceOf(from, to)
	}
	i, err := strconv.Atoi(s)
	if err != nil {
		return step{}, fmt.Errorf("[%s] is neither an index, a slice, *, a name in quotes nor a filter", s)
	}
	return step{kind: 'i', index: i}, nil
}
