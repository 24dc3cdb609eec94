package zdump_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cli/internal/zdump"
	"github.com/ambit-mesh/ambit/local/table"
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

func TestDumpsOfOlderZtunnels(t *testing.T) {
	d, err := zdump.Parse([]byte(`{
	 "workloads": {"/10.0.0.1": {"uid": "k//Pod/a/web", "name": "web", "namespace": "a", "hostname": "web.example", "workloadIps": [], "status": "Healthy", "protocol": "TCP"}},
	 "services": {"/10.96.0.1": {"name": "web", "namespace": "a", "vips": ["/10.96.0.1"], "endpoints": {"k//Pod/a/web:/10.0.0.1": {"workloadUid": "k//Pod/a/web"}}}},
	 "certificates": [{"identity": "spiffe://t/ns/a/sa/b", "state": "Unavailable: no answer", "certChain": []},
	  {"identity": "spiffe://t/ns/a/sa/a", "state": "Available", "certChain": [
	   {"serialNumber": "1", "validFrom": "2026-11-25T00:00:00Z", "expirationTime": "2026-11-26T00:00:00Z"}, {"serialNumber": "2"}, {"serialNumber": "3"}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	for _, rows := range []zdump.Table{d.WorkloadTable(zdump.Filter{}), d.ServiceTable(zdump.Filter{}), d.CertificateTable(zdump.Filter{}, now)} {
		if err := table.Align(&b, rows); err != nil {
			t.Fatal(err)
		}
	}
	const want = `NAMESPACE   POD NAME   ADDRESS       NODE   WAYPOINT   PROTOCOL
a           web        web.example          None       TCP
NAMESPACE   SERVICE NAME   SERVICE VIP   WAYPOINT   ENDPOINTS
a           web            10.96.0.1     None       1/1
CERTIFICATE NAME       TYPE           STATUS        VALID CERT   SERIAL NUMBER   NOT AFTER              NOT BEFORE
spiffe://t/ns/a/sa/a   Leaf           Available     true         1               2026-11-26T00:00:00Z   2026-11-25T00:00:00Z
spiffe://t/ns/a/sa/a   Intermediate   Available     false        2                                      
spiffe://t/ns/a/sa/a   Root           Available     false        3                                      
spiffe://t/ns/a/sa/b   NA             Unavailable   false        NA              NA                     NA
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestJoinKeepsWhatIsEachOnesOwn(t *testing.T) {
	one, other := parsed(t), parsed(t)
	other.WorkloadState = map[string]zdump.Pod{"c": {State: "Up"}}
	other.Raw["workloadState"] = []byte(`{"c": {"info": {"name": "c", "namespace": "c"}}}`)
	if err := one.Join(other); err != nil {
		t.Fatal(err)
	}
	if w, c, p := len(one.Workloads), len(one.Certificates), len(one.WorkloadState); w != 3 || c != 4 || p != 3 {
		t.Errorf("workloads %d, certificates %d, pods %d; want 3, 4, 3", w, c, p)
	}
	if got := one.Only("workloadState", zdump.Filter{Name: "c"}); len(got) != 1 {
		t.Errorf("pods called c: %s", got)
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
