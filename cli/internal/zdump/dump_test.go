package zdump_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cli/internal/table"
	"github.com/ambit-mesh/ambit/cli/internal/zdump"
)

func parsed(t testing.TB) *zdump.Dump {
	t.Helper()
	b, err := os.ReadFile("testdata/config_dump.json")
	if err != nil {
		t.Fatal(err)
	}
	d, err := zdump.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTables(t *testing.T) {
	d := parsed(t)
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		rows zdump.Table
		want string
	}{
		{"workloads", d.WorkloadTable(zdump.Filter{}), "" +
			"NAMESPACE   POD NAME   ADDRESS              NODE     WAYPOINT   PROTOCOL\n" +
			"default     reviews    10.244.2.3,fd00::3   node-2   waypoint   HBONE\n" +
			"default     sleep      10.244.1.2           node-1   None       HBONE\n" +
			"legacy      sleep      10.244.1.9           node-1   None       TCP\n"},
		{"workloads of a node", d.WorkloadTable(zdump.Filter{Namespace: "default", Node: "node-2", Address: "fd00::3"}), "" +
			"NAMESPACE   POD NAME   ADDRESS              NODE     WAYPOINT   PROTOCOL\n" +
			"default     reviews    10.244.2.3,fd00::3   node-2   waypoint   HBONE\n"},
		{"services", d.ServiceTable(zdump.Filter{}), "" +
			"NAMESPACE   SERVICE NAME   SERVICE VIP   WAYPOINT   ENDPOINTS\n" +
			"default     reviews        10.96.0.7     None       1/2\n" +
			"default     waypoint       10.96.0.8     None       0/0\n"},
		{"policies", d.PolicyTable(zdump.Filter{Namespace: "default"}), "" +
			"NAMESPACE   POLICY NAME   ACTION   SCOPE\n" +
			"default     viewer        Allow    WorkloadSelector\n"},
		{"certificates", d.CertificateTable(zdump.Filter{}, now), "" +
			"CERTIFICATE NAME                            TYPE   STATUS        VALID CERT   SERIAL NUMBER   NOT AFTER              NOT BEFORE\n" +
			"spiffe://cluster.local/ns/default/sa/a      Leaf   Available     true         ff              2026-11-26T00:00:00Z   2026-11-25T00:00:00Z\n" +
			"spiffe://cluster.local/ns/default/sa/a      Root   Available     false        1               2026-11-24T00:00:00Z   2026-11-23T00:00:00Z\n" +
			"spiffe://cluster.local/ns/default/sa/late   NA     Unavailable   false        NA              NA                     NA\n"},
		{"connections", d.ConnectionTable(zdump.Filter{}), "" +
			"WORKLOAD          DIRECTION   LOCAL                  REMOTE                 REMOTE TARGET        PROTOCOL\n" +
			"reviews.default   Inbound     reviews.default:9080   sleep.default:40000                         HBONE\n" +
			"sleep.default     Outbound    sleep.default:40000    reviews.default:9080   reviews.local:9080   HBONE\n"},
		{"connections, raw", d.ConnectionTable(zdump.Filter{Raw: true, Direction: "outbound"}), "" +
			"WORKLOAD        DIRECTION   LOCAL              REMOTE            REMOTE TARGET    PROTOCOL\n" +
			"sleep.default   Outbound    10.244.1.2:40000   10.244.2.3:9080   10.96.0.7:9080   HBONE\n"},
	} {
		var b bytes.Buffer
		if err := table.Align(&b, c.rows); err != nil {
			t.Fatal(err)
		}
		if b.String() != c.want {
			t.Errorf("%s:\n%swant:\n%s", c.name, b.String(), c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile("testdata/config_dump.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"workloads":[{}],"certificates":[{"state":{"Unavailable":"x"}}]}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		d, err := zdump.Parse(b)
		if err != nil {
			return
		}
		d.WorkloadTable(zdump.Filter{})
		d.ServiceTable(zdump.Filter{})
		d.PolicyTable(zdump.Filter{})
		d.CertificateTable(zdump.Filter{}, time.Now())
		d.ConnectionTable(zdump.Filter{})
		d.Only("workloads", zdump.Filter{Address: "a"})
	})
}
