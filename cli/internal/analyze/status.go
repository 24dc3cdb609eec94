package analyze

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// conditions tells of those that the control plane reports as not met.
func conditions(a *analysis) {
	for _, l := range a.all {
		group := kinds.Of(l.Object).Group
		if l.File != "" || !strings.HasSuffix(group, "istio.io") && group != "gateway.networking.k8s.io" {
			continue
		}
		raw, err := kinds.EncodeJSON(l.Object)
		if err != nil {
			continue // it came from JSON
		}
		var v struct {
			Status struct {
				Conditions []struct{ Type, Status, Reason, Message string } `json:"conditions"`
			} `json:"status"`
		}
		if json.Unmarshal(raw, &v) != nil {
			continue // conditions of another form
		}
		for _, c := range v.Status.Conditions {
			if c.Status == "False" {
				a.add(l, finding{
					Warning, "IST0171", "status", fmt.Sprintf("A condition with a negative status is present: type=%s, reason=%s, message=%s.", c.Type, c.Reason, strings.TrimSuffix(c.Message, ".")), "",
				})
			}
		}
	}
}
