package cli

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/ambit-mesh/ambit/cli/internal/table"
)

func TestStatusTable(t *testing.T) {
	var all []xdsClient
	err := json.Unmarshal([]byte(`[
	 {"Caller": {"Namespace": "istio-system", "Pod": "z2", "Node": "node-2"}, "Cluster": "Kubernetes", "Node": "ztunnel~10.0.0.2~z2.istio-system~istio-system.svc.cluster.local", "Types": {
	  "type.googleapis.com/istio.workload.Address": {"Sent": "3", "Acked": "2", "Outstanding": true, "Held": 7},
	  "type.googleapis.com/istio.security.Authorization": {"Sent": "2", "Acked": "1", "Nack": "policy a/b: no such field"}}},
	 {"Caller": {"Namespace": "default", "Pod": "gw", "Node": "node-1"}, "Cluster": "Kubernetes", "Node": "router~10.0.0.1~gw.default~default.svc.cluster.local", "Types": {
	  "type.googleapis.com/istio.workload.Address": {"Sent": "3", "Acked": "3", "Held": 7}}}]`), &all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i].Istiod, all[i].Version = "istiod-a", "1.2"
	}
	rows, reasons := statusTable(all)
	var b bytes.Buffer
	if err := table.Align(&b, rows); err != nil {
		t.Fatal(err)
	}
	const want = "" +
		"NAME              CLUSTER      NODE     AUTHORIZATION   ADDRESS      ISTIOD     VERSION\n" +
		"gw.default        Kubernetes   node-1   -               SYNCED (7)   istiod-a   1.2\n" +
		"z2.istio-system   Kubernetes   node-2   NACK            STALE        istiod-a   1.2\n"
	if b.String() != want {
		t.Errorf("table:\n%swant:\n%s", b.String(), want)
	}
	if want := []string{"z2.istio-system refused type.googleapis.com/istio.security.Authorization: policy a/b: no such field"}; !slices.Equal(reasons, want) {
		t.Errorf("reasons = %q, want %q", reasons, want)
	}
}
