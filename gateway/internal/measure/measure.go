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

// Families are what a proxy counts.
type Families struct {
	own      Workload
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	received *prometheus.HistogramVec
	sent     *prometheus.HistogramVec
	asked    *prometheus.CounterVec // messages of gRPC
	answered *prometheus.CounterVec
	opened   *prometheus.CounterVec
	closed   *prometheus.CounterVec
	bytesIn  *prometheus.CounterVec
	bytesOut *prometheus.CounterVec
}

func labels() []string {
	return []string{
		"reporter", "source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
		"source_principal", "source_app", "source_version", "source_cluster", "destination_workload",
		"destination_workload_namespace", "destination_principal", "destination_app", "destination_version",
		"destination_service", "destination_canonical_service", "destination_canonical_revision", "destination_service_name",
		"destination_service_namespace", "destination_cluster", "request_protocol", "response_flags", "connection_security_policy",
	}
}

// New makes the families.
func New(own Workload) *Families {
	// Envoy's default buckets, in ms and bytes.
	buckets := []float64{.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1.8e6, 3.6e6}
	connections := labels()
	requests := append(labels(), "response_code", "grpc_response_status")
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, requests)
	}
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &Families{
		own:      own,
		requests: counter("istio_requests_total", "Requests that ended.", requests),
		duration: histogram("istio_request_duration_milliseconds", "Duration of requests."),
		received: histogram("istio_request_bytes", "Size of requests' bodies."),
		sent:     histogram("istio_response_bytes", "Size of responses' bodies."),
		asked:    counter("istio_request_messages_total", "Messages of gRPC from clients.", requests),
		answered: counter("istio_response_messages_total", "Messages of gRPC to clients.", requests),
		opened:   counter("istio_tcp_connections_opened_total", "Connections carried, at their start.", connections),
		closed:   counter("istio_tcp_connections_closed_total", "Connections carried, at their end.", connections),
		bytesIn:  counter("istio_tcp_received_bytes_total", "Bytes received of clients on connections that were carried.", connections),
		bytesOut: counter("istio_tcp_sent_bytes_total", "Bytes sent to clients on connections that were carried.", connections),
	}
}

// Register adds the families to a registry.
func (q *Families) Register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		q.requests, q.duration, q.received, q.sent, q.asked, q.answered, q.opened, q.closed, q.bytesIn, q.bytesOut,
	} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// Opened counts a connection that now carries bytes.
func (q *Families) Opened(r *access.Record) {
	q.opened.WithLabelValues(q.values(r, "tcp", "-")...).Inc()
}

// Observe counts a finished request or connection.
func (q *Families) Observe(r *access.Record) {
	if r.Stream {
		v := q.values(r, "tcp", r.ResponseFlags())
		q.closed.WithLabelValues(v...).Inc()
		q.bytesIn.WithLabelValues(v...).Add(float64(r.BytesReceived))
		q.bytesOut.WithLabelValues(v...).Add(float64(r.BytesSent))
		return
	}
	protocol := "http"
	if r.GRPC {
		protocol = "grpc"
	}
	v := append(q.values(r, protocol, r.ResponseFlags()), strconv.Itoa(r.Status), grpcStatus(r.GRPCStatus))
	q.requests.WithLabelValues(v...).Inc()
	q.duration.WithLabelValues(v...).Observe(float64(r.Duration.Microseconds()) / 1000)
	q.received.WithLabelValues(v...).Observe(float64(r.BytesReceived))
	q.sent.WithLabelValues(v...).Observe(float64(r.BytesSent))
	if r.GRPC {
		q.asked.WithLabelValues(v...).Add(float64(r.MessagesReceived))
		q.answered.WithLabelValues(v...).Add(float64(r.MessagesSent))
	}
}

// values are those of labels(). None of them is one that a client chooses.
func (q *Families) values(r *access.Record, protocol, flags string) []string {
	o, w := q.own, r.Endpoint.GetWorkload()
	principal := "unknown"
	if r.Endpoint.GetTunnel() != l7.Tunnel_NONE {
		principal = r.Endpoint.GetIdentity()
	}
	host := r.Backend.GetHostname()
	name := host
	if short, rest, ok := strings.Cut(host, "."); ok && strings.HasPrefix(rest, r.Backend.GetNamespace()+".svc.") {
		name = short
	}
	// Envoy knows the security of a connection where it is received alone; a source says unknown.
	return []string{
		"source", word(o.Name), word(o.CanonicalName), word(o.CanonicalRevision), word(o.Namespace), word(o.Principal), word(o.App),
		word(o.Version), word(o.Cluster), word(w.GetName()), word(w.GetNamespace()), principal, word(w.GetApp()), word(w.GetVersion()),
		word(host), word(w.GetCanonicalName()), word(w.GetCanonicalRevision()), word(name), word(r.Backend.GetNamespace()),
		word(w.GetCluster()), protocol, flags, "unknown",
	}
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
