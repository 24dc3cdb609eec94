package cli

import (
	"encoding/json"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// condition is what every kind's status.conditions have in common.
type condition struct{ name, status, reason, message string }

// conditionsOf reads the conditions of any object, by way of its JSON: kinds do not share a type for them.
func conditionsOf(o kinds.Object) []condition {
	raw, err := kinds.EncodeJSON(o)
	if err != nil {
		return nil
	}
	var v struct {
		Status struct {
			Conditions []struct{ Type, Status, Reason, Message string } `json:"conditions"`
		} `json:"status"`
	}
	if json.Unmarshal(raw, &v) != nil {
		return nil
	}
	var all []condition
	for _, c := range v.Status.Conditions {
		all = append(all, condition{c.Type, c.Status, c.Reason, c.Message})
	}
	return all
}
