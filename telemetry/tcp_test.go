package telemetry

import (
	"fmt"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestConnectionIsCountedUnderIstiosNames(t *testing.T) {
	m := NewMetrics("ztunnel", "dev")
	r := example(Inbound)
	r.Sent, r.Received = 0, 0
	closed := m.TCP.Opened(r, nil)
	if got := scrape(t, m); !strings.Contains(got, `istio_tcp_sockets_open{reporter="destination"} 1`) {
		t.Errorf("an open connection is not in istio_tcp_sockets_open:\n%s", got)
	}
	r.Sent, r.Received = 83, 1024
	closed()
	closed()
	r.Flag, r.Mutual = Denied, false
	m.TCP.Failed(r)
	got := scrape(t, m)
	// Every label, in Istio's order; those of localities are there because an end is known.
	const ends = `reporter="destination",source_workload="notsleep",source_canonical_service="unknown",source_canonical_revision="unknown",source_workload_namespace="default",` +
		`source_principal="spiffe://cluster.local/ns/default/sa/notsleep",source_app="unknown",source_version="unknown",source_cluster="Kubernetes",` +
		`destination_service="productpage.default.svc.cluster.local",destination_service_namespace="default",destination_service_name="productpage",` +
		`destination_workload="productpage",destination_canonical_service="unknown",destination_canonical_revision="unknown",destination_workload_namespace="default",` +
		`destination_principal="spiffe://cluster.local/ns/default/sa/productpage",destination_app="unknown",destination_version="unknown",destination_cluster="unknown",request_protocol="tcp",`
	const where = `,source_region="unknown",source_zone="unknown",destination_region="unknown",destination_zone="unknown"}`
	const mutual, denied = ends + `response_flags="-",connection_security_policy="mutual_tls"` + where, ends + `response_flags="DENY",connection_security_policy="unknown"` + where
	const plain = ends + `response_flags="-",connection_security_policy="unknown"` + where
	for _, want := range []string{
		"# HELP istio_tcp_connections_opened_total The total number of TCP connections opened.",
		"# TYPE istio_tcp_connections_opened_total counter",
		"istio_tcp_connections_opened_total{" + mutual + " 1",
		"istio_tcp_connections_closed_total{" + mutual + " 1",
		"istio_tcp_received_bytes_total{" + mutual + " 83",
		"istio_tcp_sent_bytes_total{" + mutual + " 1024",
		"istio_tcp_connections_opened_total{" + plain + " 1",
		"istio_tcp_connections_closed_total{" + denied + " 1",
		"istio_tcp_connections_failed_total{" + denied + " 1",
		`istio_build{component="ztunnel",tag="dev"} 1`,
		"# TYPE istio_tcp_sockets_open gauge",
		`istio_tcp_sockets_open{reporter="destination"} 0`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no line %s\nin %s", want, got)
		}
	}
}

func TestEndsThatNobodyKnowsHaveNoLocality(t *testing.T) {
	m := NewMetrics("ztunnel", "dev")
	m.TCP.Failed(&Record{Early: true, Flag: Denied})
	if got := scrape(t, m); strings.Contains(got, "region") || !strings.Contains(got, `istio_tcp_connections_failed_total{reporter="source",source_workload="unknown"`) || strings.Contains(got, "connections_opened_total{") {
		t.Errorf("got\n%s", got)
	}
}

func TestABrokenConnectionCountsAsSuch(t *testing.T) {
	m := NewMetrics("ztunnel", "dev")
	r := example(Outbound)
	closed := m.TCP.Opened(r, nil)
	r.Err = "connection reset by peer"
	closed()
	got := scrape(t, m)
	for family, flag := range map[string]string{"opened": "-", "closed": "CONNECT", "failed": "CONNECT"} {
		if !regexp.MustCompile(`(?m)^istio_tcp_connections_` + family + `_total\{.*response_flags="` + flag + `".*\} 1$`).MatchString(got) {
			t.Errorf("no %s with flag %s in\n%s", family, flag, got)
		}
	}
}

type carried struct{ sent, received uint64 }

func (c *carried) Carried() (sent, received uint64) { return c.sent, c.received }

func TestBytesCountWhileTheyFlow(t *testing.T) {
	m := NewMetrics("ztunnel", "dev")
	r, now := example(Outbound), &carried{}
	r.Sent, r.Received = 0, 0
	closed := m.TCP.Opened(r, now)
	for _, step := range []struct{ sent, received, wantReceived, wantSent uint64 }{{10, 0, 10, 0}, {10, 7, 10, 7}, {400, 9, 400, 9}} {
		now.sent, now.received = step.sent, step.received
		got := scrape(t, m)
		for family, want := range map[string]uint64{"received": step.wantReceived, "sent": step.wantSent} {
			if !regexp.MustCompile(fmt.Sprintf(`(?m)^istio_tcp_%s_bytes_total\{.*\} %d$`, family, want)).MatchString(got) {
				t.Errorf("after %d and %d bytes: no %s of %d in\n%s", step.sent, step.received, family, want, got)
			}
		}
	}
	r.Sent, r.Received = 401, 9
	closed()
	if got := scrape(t, m); !regexp.MustCompile(`(?m)^istio_tcp_received_bytes_total\{.*\} 401$`).MatchString(got) || !strings.Contains(got, `istio_tcp_sockets_open{reporter="source"} 0`) {
		t.Errorf("at the end:\n%s", got)
	}
}

func TestCountsOfWorkloadsThatAreGoneAreReleased(t *testing.T) { // XD-19
	m := NewMetrics("ztunnel", "dev")
	gone := func(_, workload string) bool { return workload != "notsleep" }
	r := example(Inbound)
	closed := m.TCP.Opened(r, nil)
	scrape(t, m)
	m.TCP.Release(gone)
	if len(m.TCP.series) != 1 {
		t.Error("what an open connection counts was let go")
	}
	closed()
	m.TCP.Release(gone)
	if len(m.TCP.series) != 1 {
		t.Error("a count was let go that nobody has seen")
	}
	if got := scrape(t, m); !strings.Contains(got, "istio_tcp_connections_closed_total{") {
		t.Errorf("the end is not counted:\n%s", got)
	}
	m.TCP.Release(func(string, string) bool { return true })
	if len(m.TCP.series) != 1 {
		t.Error("the count of a workload that is there was let go")
	}
	m.TCP.Release(gone)
	if len(m.TCP.series) != 0 {
		t.Errorf("%d series are left of a workload that is gone", len(m.TCP.series))
	}
	d := NewDNS()
	for _, s := range []string{"a", "b"} {
		q := Question{Type: "a", Protocol: "udp", Service: s, Revision: "v1"}
		d.Asked(q)
		d.Forwarded(q, time.Millisecond, true)
	}
	d.Release(func(service, _ string) bool { return service == "a" })
	registry := prometheus.NewRegistry()
	registry.MustRegister(d.Collectors()...)
	all, err := registry.Gather()
	if err != nil || len(all) != 4 {
		t.Fatalf("%d families, %v", len(all), err)
	}
	for _, f := range all {
		if n := len(f.GetMetric()); n != 1 || !strings.Contains(f.String(), `"a"`) {
			t.Errorf("%d of %s are left, want that of a alone", n, f.GetName())
		}
	}
}

func TestFormatsOfAScrape(t *testing.T) {
	m := NewMetrics("ztunnel", "dev")
	m.XDS.Bytes.WithLabelValues("t").Add(3)
	for accept, want := range map[string][]string{
		"":          {"text/plain", "# TYPE istio_xds_message_bytes_total counter\nistio_xds_message_bytes_total{url=\"t\"} 3"},
		"text/html": {"text/plain"},
		"application/openmetrics-text;version=1.0.0,text/plain;q=0.5": {"application/openmetrics-text", "# TYPE istio_xds_message_bytes counter\nistio_xds_message_bytes_total{url=\"t\"} 3.0", "# EOF"},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/stats/prometheus", nil)
		r.Header.Set("Accept", accept)
		m.Handler().ServeHTTP(w, r)
		if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, want[0]) {
			t.Errorf("Accept %q: %s", accept, got)
		}
		for _, text := range want[1:] {
			if !strings.Contains(w.Body.String(), text) {
				t.Errorf("Accept %q: no %q in\n%s", accept, text, w.Body)
			}
		}
	}
}

func TestLabelSetsAreBounded(t *testing.T) { // XD-19
	tcp := newTCP(10)
	for i := range 1000 {
		r := example(Inbound)
		r.Src.Workload, r.Flag = fmt.Sprint("w", i), Denied
		tcp.Failed(r)
	}
	if n := len(tcp.series); n > 14 {
		t.Errorf("%d label sets, want at most 14", n)
	}
	var total uint64
	for _, s := range tcp.series {
		total += s.failed.Load()
	}
	if total != 1000 {
		t.Errorf("%d failures counted, want 1000", total)
	}
}

// What is written here by hand is read by others.
func TestExpositionIsRead(t *testing.T) {
	m := NewMetrics("ztunnel", "dev")
	evil := example(Inbound)
	evil.Src.Workload, evil.Src.CanonicalName, evil.Service.Host = "a\"b\\c\nd", "\xff\xfe", "host{x=\"y\"} 1"
	closed := m.TCP.Opened(evil, nil)
	evil.Flag, evil.Err = TLSFailed, "tls error"
	closed()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(scrape(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]float64{
		"istio_tcp_connections_opened_total": 1, "istio_tcp_connections_closed_total": 1, "istio_tcp_connections_failed_total": 1,
		"istio_tcp_received_bytes_total": 83, "istio_tcp_sent_bytes_total": 1024,
	} {
		f := all[name]
		if f == nil || len(f.GetMetric()) != 1 || f.GetMetric()[0].GetCounter().GetValue() != value || len(f.GetMetric()[0].GetLabel()) != labelCount {
			t.Errorf("%s is %v, want one counter of %v with %d labels", name, f, value, labelCount)
			continue
		}
		for _, l := range f.GetMetric()[0].GetLabel() {
			if l.GetName() == "source_workload" && l.GetValue() != evil.Src.Workload {
				t.Errorf("%s: %q became %q", name, evil.Src.Workload, l.GetValue())
			}
		}
	}
	if n := len(all["istio_tcp_sockets_open"].GetMetric()); n != 2 {
		t.Errorf("%d kinds of sockets, want 2", n)
	}
}

// Clients that say of themselves what they like: 100,000 names make few series, all is counted, and what the control
// plane knows has its place besides.
func TestForeignNamesAreFewSeries(t *testing.T) { // XD-19
	m := NewMetrics("ztunnel", "dev")
	connect := func(n int, foreign bool, name string) {
		for i := range n {
			r := example(Inbound)
			r.Src.Workload, r.Src.Foreign = fmt.Sprint(name, i), foreign
			m.TCP.Opened(r, nil)()
		}
	}
	const many, ours = 100_000, 500
	connect(many, true, "w")
	connect(ours, false, "ours")
	got := scrape(t, m)
	var lines, opened int
	for l := range strings.Lines(got) {
		if !strings.HasPrefix(l, "istio_tcp_") {
			continue
		}
		lines++
		if rest, ok := strings.CutPrefix(l, "istio_tcp_connections_opened_total{"); ok {
			_, n, _ := strings.Cut(rest, "} ")
			k, err := strconv.Atoi(strings.TrimSpace(n))
			if err != nil {
				t.Fatal(err)
			}
			opened += k
		}
	}
	if lines > 10_000 || opened != many+ours || !strings.Contains(got, `source_workload="ours499"`) {
		t.Errorf("%d series count %d connections, want at most 10000 that count %d", lines, opened, many+ours)
	}
}

// crowd is a registry with as many series as there may be.
func crowd() *Metrics {
	m := NewMetrics("ztunnel", "dev")
	for i := range maxSeries {
		r := example(Direction(i & 1))
		r.Dst.Workload, r.Dst.CanonicalName, r.Src.Region = fmt.Sprint("w", i), fmt.Sprint("w", i), "r1"
		m.TCP.Opened(r, nil)()
	}
	return m
}

// What a scrape of the largest registry costs, against the connections that go on meanwhile.
func BenchmarkScrape(b *testing.B) {
	h := crowd().Handler()
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		b.SetBytes(int64(w.Body.Len()))
	}
}

func BenchmarkConnection(b *testing.B) {
	t, r := newTCP(maxSeries), example(Inbound)
	b.ReportAllocs()
	for b.Loop() {
		t.Opened(r, nil)()
	}
}
