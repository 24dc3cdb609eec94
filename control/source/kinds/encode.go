package kinds

import (
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"
)

// Encode writes o as YAML, without the empty fields that Go's encoder leaves behind.
func Encode(o Object) ([]byte, error) {
	tree, err := plain(o)
	if err != nil {
		return nil, err
	}
	data, err := yaml.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("write %s %s as YAML: %w", Of(o).Kind, o.GetName(), err)
	}
	return data, nil
}

// EncodeJSON writes o as JSON, as tidy as Encode does.
func EncodeJSON(o Object) ([]byte, error) {
	tree, err := plain(o)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("write %s %s as JSON: %w", Of(o).Kind, o.GetName(), err)
	}
	return data, nil
}

func plain(o Object) (map[string]any, error) {
	k := Of(o)
	data, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("write %s %s as JSON: %w", k.Kind, o.GetName(), err)
	}
	var tree map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &tree); err != nil {
		return nil, fmt.Errorf("read %s %s back: %w", k.Kind, o.GetName(), err)
	}
	tree["apiVersion"], tree["kind"] = k.APIVersion(), k.Kind
	tidy(tree)
	if status, ok := tree["status"].(map[string]any); ok && emptied(status) {
		delete(tree, "status")
	}
	return tree, nil
}

// tidy removes nulls, which mean nothing in an object.
func tidy(v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			if inner == nil {
				delete(v, k)
				continue
			}
			tidy(inner)
		}
	case []any:
		for _, inner := range v {
			tidy(inner)
		}
	}
}

// emptied reports whether m holds nothing but empty maps.
func emptied(m map[string]any) bool {
	for _, v := range m {
		if inner, ok := v.(map[string]any); !ok || !emptied(inner) {
			return false
		}
	}
	return true
}
