package jsonpath

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// test is a filter: a path below each item, and what it is compared with. Without an operator, being there is enough.
type test struct {
	path  []step
	op    string
	value any // string, float64, bool or nil
}

// admits are the items of a list, or the value itself, that pass.
func (t *test) admits(v any) []any {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var out []any
	for _, item := range list {
		found := []any{item}
		for _, s := range t.path {
			var next []any
			for _, f := range found {
				next = append(next, s.from(f)...)
			}
			found = next
		}
		if slices.ContainsFunc(found, t.holds) {
			out = append(out, item)
		}
	}
	return out
}

func (t *test) holds(v any) bool {
	if t.op == "" {
		return true
	}
	order, comparable := compare(v, t.value)
	switch t.op {
	case "==":
		return comparable && order == 0
	case "!=":
		return !comparable || order != 0
	case "<":
		return comparable && order < 0
	case "<=":
		return comparable && order <= 0
	case ">":
		return comparable && order > 0
	}
	return comparable && order >= 0
}

// compare orders two values of one kind.
func compare(a, b any) (order int, comparable bool) {
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return cmp.Compare(x, y), ok
	case float64:
		y, ok := b.(float64)
		return cmp.Compare(x, y), ok
	case bool:
		y, ok := b.(bool)
		if x == y {
			return 0, ok
		}
		return 1, ok
	}
	return 0, a == nil && b == nil
}

// filter reads ?(@.path OP value).
func filter(s string) (step, error) {
	inside := strings.TrimSpace(strings.TrimPrefix(s, "?"))
	if !strings.HasPrefix(inside, "(") || !strings.HasSuffix(inside, ")") {
		return step{}, fmt.Errorf("[%s]: write a filter as [?(@.field==\"value\")]", s)
	}
	left, op, right := split(inside[1 : len(inside)-1])
	path, root, err := steps(strings.TrimSpace(left))
	if err != nil {
		return step{}, err
	}
	if root || !strings.HasPrefix(strings.TrimSpace(left), "@") {
		return step{}, fmt.Errorf("[%s]: a filter's path begins with @", s)
	}
	t := &test{path: path, op: op}
	if op != "" {
		if t.value, err = literal(strings.TrimSpace(right)); err != nil {
			return step{}, fmt.Errorf("[%s]: %w", s, err)
		}
	}
	return step{kind: '?', test: t}, nil
}

// split finds the operator outside of quotes.
func split(s string) (left, op, right string) {
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		switch {
		case quote != 0:
			if s[i] == quote {
				quote = 0
			}
		case s[i] == '"' || s[i] == '\'':
			quote = s[i]
		default:
			for _, op := range []string{"==", "!=", "<=", ">=", "<", ">"} {
				if strings.HasPrefix(s[i:], op) {
					return s[:i], op, s[i+len(op):]
				}
			}
		}
	}
	return s, "", ""
}

func literal(s string) (any, error) {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1], nil
	}
	switch s {
	case "true", "false":
		return s == "true", nil
	case "null", "nil":
		return nil, nil
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil, fmt.Errorf("%s is neither a number, true, false nor a text in quotes", s)
	}
	return n, nil
}

// sliceOf reads FROM:TO, either of which may be missing or count from the end.
func sliceOf(from, to string) (step, error) {
	s := step{kind: 's'}
	for i, text := range []string{strings.TrimSpace(from), strings.TrimSpace(to)} {
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return s, fmt.Errorf("[%s:%s] is no slice", from, to)
		}
		if i == 0 {
			s.index = n
		} else {
			s.upto = &n
		}
	}
	return s, nil
}

func (s step) slice(v []any) []any {
	place := func(n int) int {
		if n < 0 {
			n += len(v)
		}
		return min(max(n, 0), len(v))
	}
	from, to := place(s.index), len(v)
	if s.upto != nil {
		to = place(*s.upto)
	}
	if from >= to {
		return nil
	}
	return v[from:to]
}

// maxDepth bounds how far below a value everything is.
const maxDepth = 100

// below is everything inside a value.
func below(v any, depth int) []any {
	if depth == maxDepth {
		return nil
	}
	var inner []any
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			inner = append(inner, v[k])
		}
	case []any:
		inner = v
	}
	var all []any
	for _, x := range inner {
		all = append(append(all, x), below(x, depth+1)...)
	}
	return all
}

// closed is where the ] stands that closes a text's first [, outside of quotes; -1 for nowhere.
func closed(p string) int {
	quote, depth := byte(0), 0
	for i := 0; i < len(p); i++ {
		switch {
		case quote != 0:
			if p[i] == quote {
				quote = 0
			}
		case p[i] == '"' || p[i] == '\'':
			quote = p[i]
		case p[i] == '[':
			depth++
		case p[i] == ']':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// Find gives the values at one path, such as .spec.ports[*].port.
func Find(path string, v any) ([]any, error) {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "{"), "}")
	if path != "" && !strings.ContainsAny(path[:1], ".[$@") {
		path = "." + path
	}
	all, _, err := steps(path)
	if err != nil {
		return nil, err
	}
	found := []any{v}
	for _, s := range all {
		var next []any
		for _, f := range found {
			next = append(next, s.from(f)...)
		}
		found = next
	}
	return found, nil
}

// Text is a value as templates write it.
func Text(v any) string { return text(v) }
