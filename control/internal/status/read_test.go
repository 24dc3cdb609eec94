package status

import (
	"testing"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// What is written of an object of any kind is found again after a restart, at each of its places, so that nothing seems to
// have begun with the control plane.
func TestWhatIsWrittenIsRemembered(t *testing.T) {
	from, n := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), 0
	for _, k := range kinds.All() {
		c := []Condition{{Type: "Held", True: true, Reason: "R"}, {Type: "Failed", Reason: "R"}}
		s := Status{
			Ref: source.Ref{Kind: k, Key: source.Key("n", "x")}, Conditions: c,
			Parents:   []gatewayv1.ParentReference{{Name: "a"}, {Name: "b"}},
			Listeners: []Listener{{Name: "http", Conditions: c}, {Name: "https", Conditions: c}},
		}
		asked := map[string]held{}
		o, err := s.object(func(c Condition) time.Time {
			asked[c.Type] = held{c.True, from}
			return from
		})
		if err != nil {
			continue // a kind that has no conditions
		}
		n++
		got := conditions(o)
		if len(got) != len(asked) {
			t.Errorf("%s: remembered %v, want %v", k.Kind, got, asked)
		}
		for name, want := range asked {
			if h, ok := got[name]; !ok || h.is != want.is || !h.from.Equal(from) {
				t.Errorf("%s: %s is remembered as %v (%v), want %v", k.Kind, name, h, ok, want)
			}
		}
	}
	if n < 15 {
		t.Errorf("%d kinds have conditions", n)
	}
}
