package telemetry

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
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
	closed := m.TCP.Opened(r)
	if got := scrape(t, m); !strings.Contains(got, `istio_tcp_sockets_open{reporter="destination"} 1`) {
		t.Errorf("an open connection is not in istio_tcp_sockets_open:\n%s", got)
	}
	r.Sent, r.Received = 83, 1024
	closed()
	closed()
	r.Flag, r.Mutual = Denied, false
	m.TCP.Failed(r)
	got := scrape(t, m)
	const rest = `source_app="unknown",source_canonical_revision="unknown",source_canonical_service="unknown",source_cluster="Kubernetes",source_principal="spiffe://cluster.local/ns/default/sa/notsleep",source_region="",source_version="unknown",source_workload="notsleep",source_workload_namespace="default",source_zone=""}`
	const first = `connection_security_policy="mutual_tls",destination_app="unknown",destination_canonical_revision="unknown",destination_canonical_service="unknown",destination_cluster="unknown",destination_principal="unknown",destination_region="",destination_service="productpage.default.svc.cluster.local",destination_service_name="productpage",destination_service_namespace="default",destination_version="unknown",destination_workload="productpage",destination_workload_namespace="default",destination_zone="",reporter="destination",request_protocol="tcp",response_flags="-",`
	for _, want := range []string{
		"istio_tcp_connections_opened_total{" + first + rest + " 1",
		"istio_tcp_connections_closed_total{" + first + rest + " 1",
		"istio_tcp_received_bytes_total{" + first + rest + " 83",
		"istio_tcp_sent_bytes_total{" + first + rest + " 1024",
		`istio_build{component="ztunnel",tag="dev"} 1`,
		`istio_tcp_sockets_open{reporter="destination"} 0`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no line %s\nin %s", want, got)
		}
	}
	if !strings.Contains(got, "istio_tcp_connections_failed_total{") || !strings.Contains(got, `response_flags="DENY"`) {
		t.Errorf("the failure is not counted:\n%s", got)
	}
}

func TestLabelSetsAreBounded(t *testing.T) {
	tcp := newTCP(10)
	for i := range 1000 {
		r := example(Inbound)
		r.Src.Workload = fmt.Sprint("w", i)
		tcp.Failed(r)
	}
	if n := len(tcp.series); n > 12 {
		t.Errorf("%d label sets, want at most 12", n)
	}
	var total uint64
	for _, s := range tcp.series {
		total += s.failed.Load()
	}
	if total != 1000 {
		t.Errorf("%d failures counted, want 1000", total)
	}
}
