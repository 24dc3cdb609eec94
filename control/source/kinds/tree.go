package kinds

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds on foreign YAML. The numbers are far above any real configuration and far below what hurts.
const (
	MaxBytes     = 64 << 20
	maxDepth     = 128
	maxAliasSize = 100_000 // nodes that aliases may add to one file
)

// node is a value of a YAML document with aliases and merge keys resolved, and where it stood.
type node struct {
	line  int
	kind  nodeKind
	text  string // scalar: as written, quotes and escapes resolved
	plain bool   // scalar: written without quotes
	value any    // scalar: bool, int64, uint64, float64 or string
	keys  []key
	items []*node
}

type key struct {
	name  string
	line  int
	value *node
}

type nodeKind uint8

const (
	null nodeKind = iota
	scalar
	list
	mapping
)

func (k nodeKind) String() string {
	return [...]string{"nothing", "a value", "a list", "a map"}[k]
}

// get is the value under name in a map.
func (n *node) get(name string) *node {
	for i := range n.keys {
		if n.keys[i].name == name {
			return n.keys[i].value
		}
	}
	return nil
}

// grower resolves aliases and merges of one file under a budget, so that a short file cannot become a huge tree.
type grower struct {
	file    string
	secret  bool // the file may hold a Secret: values are not told
	aliased int
}

func (g *grower) fail(y *yaml.Node, format string, args ...any) error {
	return Problem{File: g.file, Line: y.Line, What: fmt.Sprintf(format, args...)}
}

func (g *grower) grow(y *yaml.Node, depth int, inAlias bool) (*node, error) {
	if depth > maxDepth {
		return nil, g.fail(y, "nested deeper than %d levels", maxDepth)
	}
	if inAlias {
		if g.aliased++; g.aliased > maxAliasSize {
			return nil, g.fail(y, "aliases expand to more than %d values", maxAliasSize)
		}
	}
	switch y.Kind {
	case yaml.AliasNode:
		if y.Alias == nil {
			return nil, g.fail(y, "alias %q points to nothing", y.Value)
		}
		return g.grow(y.Alias, depth+1, true)
	case yaml.SequenceNode:
		n := &node{line: y.Line, kind: list}
		for _, c := range y.Content {
			item, err := g.grow(c, depth+1, inAlias)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		return n, nil
	case yaml.MappingNode:
		return g.mapping(y, depth, inAlias)
	case yaml.ScalarNode:
		return g.scalar(y)
	}
	return nil, g.fail(y, "is not a YAML value")
}

func (g *grower) mapping(y *yaml.Node, depth int, inAlias bool) (*node, error) {
	n := &node{line: y.Line, kind: mapping}
	seen := make(map[string]int, len(y.Content)/2)
	var merged []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		value, err := g.grow(v, depth+1, inAlias)
		if err != nil {
			return nil, err
		}
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			if value.kind == list {
				merged = append(merged, value.items...)
			} else {
				merged = append(merged, value)
			}
			continue
		}
		name, err := g.keyName(k)
		if err != nil {
			return nil, err
		}
		if at, twice := seen[name]; twice {
			return nil, g.fail(k, "field %q is there twice, first in line %d; remove one", name, at)
		}
		seen[name] = k.Line
		n.keys = append(n.keys, key{name, k.Line, value})
	}
	for _, m := range merged {
		if m.kind != mapping {
			return nil, g.fail(y, "merge key << needs a map, not %s", m.kind)
		}
		for _, k := range m.keys {
			if _, there := seen[k.name]; !there {
				seen[k.name] = k.line
				n.keys = append(n.keys, k)
			}
		}
	}
	return n, nil
}

func (g *grower) keyName(k *yaml.Node) (string, error) {
	if k.Kind == yaml.AliasNode && k.Alias != nil {
		k = k.Alias
	}
	if k.Kind != yaml.ScalarNode {
		return "", g.fail(k, "a map's key must be a word, not a list or a map")
	}
	if k.ShortTag() == "!!int" {
		s, err := g.scalar(k)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(s.value), nil
	}
	return k.Value, nil
}

func (g *grower) scalar(y *yaml.Node) (*node, error) {
	n := &node{line: y.Line, kind: scalar, text: y.Value, plain: y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0}
	switch tag := y.ShortTag(); tag {
	case "!!null":
		return &node{line: y.Line}, nil
	case "!!str", "!!timestamp":
		n.value = y.Value
	case "!!bool", "!!int", "!!float", "!!binary":
		var v any
		if err := y.Decode(&v); err != nil {
			return nil, g.fail(y, "%s is not a value of type %s", quote(y.Value, g.secret), strings.TrimPrefix(tag, "!!"))
		}
		switch v := v.(type) {
		case int:
			n.value = int64(v)
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, g.fail(y, "%s is not a number that JSON has", quote(y.Value, g.secret))
			}
			n.value = v
		case bool, string, int64, uint64:
			n.value = v
		default:
			return nil, g.fail(y, "%s is not a value that JSON has", quote(y.Value, g.secret))
		}
	default:
		return nil, g.fail(y, "tag %s is not known; remove it", tag)
	}
	return n, nil
}

// plainValue is what encoding/json makes of n.
func (n *node) plainValue() any {
	switch n.kind {
	case scalar:
		return n.value
	case list:
		out := make([]any, len(n.items))
		for i, c := range n.items {
			out[i] = c.plainValue()
		}
		return out
	case mapping:
		out := make(map[string]any, len(n.keys))
		for _, k := range n.keys {
			out[k.name] = k.value.plainValue()
		}
		return out
	}
	return nil
}

// at follows a path like spec.http[0].route and gives the deepest value that exists on it.
func (n *node) at(path string) *node {
	for path != "" && n != nil {
		var next *node
		var rest string
		if strings.HasPrefix(path, "[") {
			index, after, _ := strings.Cut(path[1:], "]")
			i, err := strconv.Atoi(index)
			if err == nil && i >= 0 && i < len(n.items) {
				next = n.items[i]
			}
			rest = after
		} else {
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			next, rest = n.get(path[:end]), path[end:]
		}
		if next == nil {
			return n
		}
		n, path = next, strings.TrimPrefix(rest, ".")
	}
	return n
}
