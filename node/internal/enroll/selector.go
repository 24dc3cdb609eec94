package enroll

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Selector is one way into the mesh: a pod that the first part chooses in a namespace that the second does. Keys are
// Istio's.
type Selector struct {
	Pod       Labels `json:"podSelector"`
	Namespace Labels `json:"namespaceSelector"`
}

// Labels chooses by labels, as Kubernetes does: every line must agree, and none chooses everything.
type Labels struct {
	Match       map[string]string `json:"matchLabels,omitempty"`
	Expressions []Expression      `json:"matchExpressions,omitempty"`
}

// Expression is one line about one label.
type Expression struct {
	Key      string   `json:"key"`
	Operator Operator `json:"operator"`
	Values   []string `json:"values,omitempty"`
}

// Operator is how a label is compared.
type Operator string

// Operators of Kubernetes.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
)

// ParseSelectors reads a JSON list of selectors. Words that it does not know are an error: a part that is passed over could
// take pods into the mesh that nobody meant, or leave out some that must be in.
func ParseSelectors(text []byte) ([]Selector, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	all := []Selector{}
	if err := d.Decode(&all); err != nil {
		return nil, fmt.Errorf("enablement selectors: want a JSON list of {podSelector, namespaceSelector}: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("enablement selectors: there is more behind the list")
	}
	if all == nil {
		return nil, errors.New("enablement selectors: null is no list: leave them out for Istio's own")
	}
	for i, s := range all {
		for _, e := range slices.Concat(s.Pod.Expressions, s.Namespace.Expressions) {
			if err := e.check(); err != nil {
				return nil, fmt.Errorf("enablement selector %d: %w", i+1, err)
			}
		}
	}
	return all, nil
}

func (e Expression) check() error {
	switch {
	case e.Key == "":
		return errors.New("an expression names no label")
	case (e.Operator == In || e.Operator == NotIn) && len(e.Values) == 0:
		return fmt.Errorf("label %s: %s needs values", e.Key, e.Operator)
	case (e.Operator == Exists || e.Operator == DoesNotExist) && len(e.Values) > 0:
		return fmt.Errorf("label %s: %s takes no values", e.Key, e.Operator)
	case !slices.Contains([]Operator{In, NotIn, Exists, DoesNotExist}, e.Operator):
		return fmt.Errorf("label %s: operator %q is none of In, NotIn, Exists, DoesNotExist", e.Key, e.Operator)
	}
	return nil
}

func (l Labels) choose(labels map[string]string) bool {
	for k, want := range l.Match {
		if have, ok := labels[k]; !ok || have != want {
			return false
		}
	}
	for _, e := range l.Expressions {
		if !e.holds(labels) {
			return false
		}
	}
	return true
}

func (e Expression) holds(labels map[string]string) bool {
	v, has := labels[e.Key]
	switch e.Operator {
	case In:
		return has && slices.Contains(e.Values, v)
	case NotIn:
		return !has || !slices.Contains(e.Values, v)
	case Exists:
		return has
	case DoesNotExist:
		return !has
	}
	return false
}
