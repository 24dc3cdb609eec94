package kinds

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	kjson "sigs.k8s.io/json"
)

// FromValue makes the typed object of what an API server gives, decoded from JSON. It is as strict as Decode about the
// spec; what others keep in metadata and status is theirs, and a status is left out where it is not understood.
func FromValue(o map[string]any) (Object, error) {
	api, _ := o["apiVersion"].(string)
	kind, _ := o["kind"].(string)
	k, ok := FindGVK(api, kind)
	if !ok {
		return nil, Problem{What: fmt.Sprintf("ambit does not know kind %s (apiVersion %s)", kind, api)}
	}
	spec, err := nodeOf(o["spec"], 0)
	if err != nil {
		return nil, err
	}
	c := checker{secret: k.Kind == "Secret"}
	if t, ok := c.fieldsOf(k.typ.Elem())["spec"]; ok {
		c.value(spec, t, "spec")
	}
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	out, err := k.typed(o)
	if err != nil && o["status"] != nil {
		o = maps.Clone(o)
		delete(o, "status")
		out, err = k.typed(o)
	}
	return out, err
}

// Check is FromValue, and Validate of what it makes: all that is wrong with an object of an API server.
func Check(o map[string]any) (Object, error) {
	out, err := FromValue(o)
	if err != nil {
		return nil, err
	}
	if ps := Validate(out); len(ps) > 0 {
		return nil, ps
	}
	return out, nil
}

func (k Kind) typed(o map[string]any) (out Object, err error) {
	out = k.New()
	// A marshaller of a foreign package that panics on foreign bytes must not take the process with it.
	defer func() {
		if r := recover(); r != nil {
			out, err = nil, Problem{What: fmt.Sprintf("cannot be read as %s: %v", k.Kind, r)}
		}
	}()
	data, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", k.Kind, err)
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, out); err != nil {
		return nil, Problem{What: fmt.Sprintf("cannot be read as %s: %v", k.Kind, err)}
	}
	setType(out, k.APIVersion(), k.Kind)
	return out, nil
}

// nodeOf is a value of JSON as a node that stands nowhere.
func nodeOf(v any, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, Problem{What: fmt.Sprintf("nested deeper than %d levels", maxDepth)}
	}
	switch v := v.(type) {
	case nil:
		return &node{}, nil
	case map[string]any:
		n := &node{kind: mapping}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			value, err := nodeOf(v[name], depth+1)
			if err != nil {
				return nil, err
			}
			n.keys = append(n.keys, key{name: name, value: value})
		}
		return n, nil
	case []any:
		n := &node{kind: list}
		for _, item := range v {
			value, err := nodeOf(item, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, value)
		}
		return n, nil
	case string:
		return &node{kind: scalar, text: v, value: v}, nil
	case bool, int64, uint64, float64:
		return &node{kind: scalar, text: fmt.Sprint(v), plain: true, value: v}, nil
	}
	return nil, errors.New("has a value that JSON does not have")
}
