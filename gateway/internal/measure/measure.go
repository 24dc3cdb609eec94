// Package measure counts requests under Istio's names and labels.
package measure

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/access"
)

// Workload is the proxy itself.
type Workload struct {
	Name, Namespace, Principal, App, Version, Cluster string
	CanonicalName, CanonicalRevision                  string
}

// Requests are the HTTP families of a proxy.
type Requests struct {
	own      Workload
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	received *prometheus.HistogramVec
	sent     *prometheus.HistogramVec
}

func labels() []string {
	return []string{
		"reporter", "source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
		"source_principal", "source_app", "source_version", "source_cluster", "destination_workload",
		"destination_workload_namespace", "destination_principal", "destination_app", "destination_version",
		"destination_service", "destination_canonical_service", "destination_canonical_revision", "destination_service_name",
		"destination_service_namespace", "destination_cluster", "request_protocol", "response_code", "grpc_response_status",
		"response_flags", "connection_security_policy",
	}
}

// New makes the families.
func New(own Workload) *Requests {
	// Envoy's default buckets, in ms and bytes.
	buckets := []float64{.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1.8e6, 3.6e6}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels())
	}
	return &Requests{
		own:      own,
		total:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_requests_total", Help: "Requests that ended."}, labels()),
		duration: histogram("istio_request_duration_milliseconds", "Duration of requests."),
		received: histogram("istio_request_bytes", "Size of requests' bodies."),
		sent:     histogram("istio_response_bytes", "Size of responses' bodies."),
	}
}

// Register adds the families to a registry.
func (q *Requests) Register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{q.total, q.duration, q.received, q.sent} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// Observe counts a finished request. No label takes a value that a client chooses.
func (q *Requests) Observe(r *access.Record) {
	o, w := q.own, r.Endpoint.GetWorkload()
	principal, policy := "unknown", "unknown"
	if r.Endpoint.GetTunnel() != l7.Tunnel_NONE {
		principal = r.Endpoint.GetIdentity()
	}
	protocol := "http"
	if r.GRPCStatus != "" {
		protocol = "grpc"
	}
	host := r.Backend.GetHostname()
	name, _, _ := strings.Cut(host, ".")
	if !strings.HasSuffix(host, ".svc.cluster.local") {
		name = host
	}
	values := []string{
		"source", word(o.Name), word(o.CanonicalName), word(o.CanonicalRevision), word(o.Namespace), word(o.Principal), word(o.App),
		word(o.Version), word(o.Cluster), word(w.GetName()), word(w.GetNamespace()), principal, word(w.GetApp()), word(w.GetVersion()),
		word(host), word(w.GetCanonicalName()), word(w.GetCanonicalRevision()), word(name), word(r.Backend.GetNamespace()),
		word(w.GetCluster()), protocol, strconv.Itoa(r.Status), grpcStatus(r.GRPCStatus), r.ResponseFlags(), policy,
	}
	q.total.WithLabelValues(values...).Inc()
	q.duration.WithLabelValues(values...).Observe(float64(r.Duration.Microseconds()) / 1000)
	q.received.WithLabelValues(values...).Observe(float64(r.BytesReceived))
	q.sent.WithLabelValues(values...).Observe(float64(r.BytesSent))
}

func word(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// grpcStatus admits the codes that gRPC has; a backend's own words do not become series.
func grpcStatus(s string) string {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 16 {
		return strconv.Itoa(n)
	}
	return ""
}
