package cli

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/local/table"
)

func TestStatusTable(t *testing.T) {
	var all []xdsClient
	err := json.Unmarshal([]byte(`[
	 {"Caller": {"Namespace": "istio-system", "Pod": "z2", "Node": "node-2"}, "Cluster": "Kubernetes", "Node": "ztunnel~10.0.0.2~z2.istio-system~istio-system.svc.cluster.local", "Types": {
	  "type.googleapis.com/istio.workload.Address": {"Sent": "3", "Acked": "2", "Outstanding": true, "Held": 7, "Behind": ["a/web"], "SentAt": "2026-11-25T08:00:00Z"},
	  "type.googleapis.com/istio.security.Authorization": {"Sent": "2", "Acked": "1", "Nack": "no such field", "Behind": ["a/b", "a/c"]}}},
	 {"Caller": {"Namespace": "default", "Pod": "gw", "Node": "node-1"}, "Cluster": "Kubernetes", "Node": "router~10.0.0.1~gw.default~default.svc.cluster.local", "Types": {
	  "type.googleapis.com/istio.workload.Address": {"Sent": "3", "Acked": "3", "Held": 7}}}]`), &all)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i].Istiod, all[i].Version = "istiod-a", "1.2"
	}
	now := time.Date(2026, 11, 25, 8, 0, 9, 0, time.UTC)
	slices.SortFunc(all, func(a, b xdsClient) int { return strings.Compare(a.name(), b.name()) })
	rows, reasons := statusTable(all, now)
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
	want2 := []string{
		"z2.istio-system refused Authorization: a/b, a/c: no such field. What it had of it stays in force.",
		"z2.istio-system has not answered for Address sent 9s ago: a/web. Until it does, what it had stays in force.",
	}
	if !slices.Equal(reasons, want2) {
		t.Errorf("reasons = %q, want %q", reasons, want2)
	}
}
