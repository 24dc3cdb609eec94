package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	kjson "sigs.k8s.io/json"
)

// operation is one step of a JSON patch (RFC 6902).
type operation struct {
	Op    string          `json:"op"`
	Path  *string         `json:"path"`
	From  string          `json:"from"`
	Value json.RawMessage `json:"value"`
}

// maxOperations bounds a patch.
const maxOperations = 10_000

// jsonPatch applies a JSON patch; a step that does not fit fails the whole.
func jsonPatch(current, patch []byte) ([]byte, error) {
	var doc any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(current, &doc); err != nil {
		return nil, err
	}
	var steps []operation
	if err := json.Unmarshal(patch, &steps); err != nil {
		return nil, fmt.Errorf("a JSON patch is a list of operations: %w", err)
	}
	if len(steps) > maxOperations {
		return nil, fmt.Errorf("%d operations, at most %d", len(steps), maxOperations)
	}
	for i, s := range steps {
		var err error
		if doc, err = s.apply(doc); err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return json.Marshal(doc)
}

func (s operation) apply(doc any) (any, error) {
	if s.Path == nil {
		return nil, fmt.Errorf("%s has no path", s.Op)
	}
	path, err := pointer(*s.Path)
	if err != nil {
		return nil, err
	}
	var value any
	switch s.Op {
	case "add", "replace", "test":
		if s.Value == nil {
			return nil, fmt.Errorf("%s has no value", s.Op)
		}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(s.Value, &value); err != nil {
			return nil, err
		}
	case "move", "copy":
		from, err := pointer(s.From)
		if err != nil {
			return nil, err
		}
		if value, err = at(doc, from); err != nil {
			return nil, err
		}
		if s.Op == "move" {
			if len(path) > len(from) && slices.Equal(path[:len(from)], from) {
				return nil, fmt.Errorf("%s cannot move into itself", s.From)
			}
			if doc, err = edit(doc, from, remove, nil); err != nil {
				return nil, err
			}
		}
		value = clone(value)
	}
	switch s.Op {
	case "test":
		have, err := at(doc, path)
		if err != nil {
			return nil, err
		}
		if !reflect.DeepEqual(have, value) {
			return nil, fmt.Errorf("test of %s fails: it is not what the patch expects", *s.Path)
		}
		return doc, nil
	case "add", "move", "copy":
		return edit(doc, path, add, value)
	case "replace":
		return edit(doc, path, replace, value)
	case "remove":
		return edit(doc, path, remove, nil)
	}
	return nil, fmt.Errorf("%q is no operation", s.Op)
}

// pointer reads a JSON pointer (RFC 6901).
func pointer(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	if s[0] != '/' {
		return nil, fmt.Errorf("path %q does not begin with /", s)
	}
	parts := strings.Split(s[1:], "/")
	for i, p := range parts {
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p)
	}
	return parts, nil
}

func at(doc any, path []string) (any, error) {
	for _, key := range path {
		switch in := doc.(type) {
		case map[string]any:
			v, ok := in[key]
			if !ok {
				return nil, fmt.Errorf("there is no %q", key)
			}
			doc = v
		case []any:
			i, err := index(key, len(in)-1)
			if err != nil {
				return nil, err
			}
			doc = in[i]
		default:
			return nil, fmt.Errorf("there is nothing below %q", key)
		}
	}
	return doc, nil
}

// index is a place in a list, at most last.
func index(key string, last int) (int, error) {
	i, err := strconv.Atoi(key)
	if err != nil || i < 0 || i > last || strconv.Itoa(i) != key {
		return 0, fmt.Errorf("%q is no place in a list of %d", key, last+1)
	}
	return i, nil
}

type change int

const (
	add change = iota
	replace
	remove
)

// edit changes what is at a path, and gives the document that came of it.
func edit(doc any, path []string, how change, value any) (any, error) {
	if len(path) == 0 {
		if how == remove {
			return nil, nil
		}
		return value, nil
	}
	key := path[0]
	switch in := doc.(type) {
	case map[string]any:
		old, ok := in[key]
		if len(path) > 1 {
			if !ok {
				return nil, fmt.Errorf("there is no %q", key)
			}
			v, err := edit(old, path[1:], how, value)
			in[key] = v
			return in, err
		}
		if !ok && how != add {
			return nil, fmt.Errorf("there is no %q", key)
		}
		if how == remove {
			delete(in, key)
		} else {
			in[key] = value
		}
		return in, nil
	case []any:
		if len(path) == 1 && how == add {
			i := len(in)
			if key != "-" {
				var err error
				if i, err = index(key, len(in)); err != nil {
					return nil, err
				}
			}
			return slices.Insert(in, i, value), nil
		}
		i, err := index(key, len(in)-1)
		if err != nil {
			return nil, err
		}
		if len(path) == 1 && how == remove {
			return slices.Delete(in, i, i+1), nil
		}
		in[i], err = edit(in[i], path[1:], how, value)
		return in, err
	}
	return nil, fmt.Errorf("there is nothing below %q", key)
}

// clone copies a value, so that no two places share one.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = clone(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = clone(x)
		}
		return out
	}
	return v
}
