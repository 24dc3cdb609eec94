package install

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/manifests"
)

// The control plane's tests run with no other rights than the chart gives it, and are asked as the chart says.
func TestTheChartIsWhatTheControlPlaneIsTestedWith(t *testing.T) {
	p, err := Make(Source{Charts: manifests.Charts(), Version: "v1"}, Options{Set: []string{"profile=minimal"}})
	if err != nil {
		t.Fatal(err)
	}
	chart := map[string]*Object{}
	for _, o := range p.Objects() {
		chart[describe(o)] = o
	}
	for _, file := range []string{"role.yaml", "webhook.yaml"} {
		text, err := os.ReadFile("../../../control/testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		all, err := objectsOf(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range all {
			is, ok := chart[describe(o)]
			if !ok {
				t.Errorf("%s: the chart has no %s", file, describe(o))
				continue
			}
			for _, field := range []string{"rules", "roleRef", "subjects", "webhooks"} {
				// Numbers come as one type from one parser and as another from the other.
				if diff := cmp.Diff(fmt.Sprint(o.Object[field]), fmt.Sprint(is.Object[field])); diff != "" {
					t.Errorf("%s: %s of %s, as tested and as the chart has it: %s", file, field, describe(o), diff)
				}
			}
		}
	}
}

func TestWhatTheControlPlaneMadeOfItsWebhookStays(t *testing.T) {
	is := func(policy string) *Object {
		o := &Object{Object: map[string]any{"webhooks": []any{map[string]any{"name": "a", "failurePolicy": policy}, map[string]any{"name": "b", "failurePolicy": "Ignore"}}}}
		o.SetKind("ValidatingWebhookConfiguration")
		return o
	}
	if diff := cmp.Diff(is("Fail"), grown(is("Ignore"), is("Fail"))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(is("Ignore"), grown(is("Ignore"), nil)); diff != "" {
		t.Error(diff)
	}
}
