package telemetry

import "github.com/prometheus/client_golang/prometheus"

// DNS counts what the DNS proxies of a node's pods are asked.
type DNS struct {
	Requests *prometheus.CounterVec // by request_query_type, request_protocol
	Upstream prometheus.Counter
	Failures prometheus.Counter
	Duration prometheus.Histogram
}

// NewDNS makes the families, which Metrics.Register takes in.
func NewDNS() *DNS {
	return &DNS{
		Requests: counters("istio_dns_requests_total", "DNS queries of pods, by type and transport.", "request_query_type", "request_protocol"),
		Upstream: prometheus.NewCounter(prometheus.CounterOpts{Name: "istio_dns_upstream_requests_total", Help: "DNS queries passed on to a resolver."}),
		Failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "istio_dns_upstream_failures_total", Help: "DNS queries that a resolver did not answer."}),
		Duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "istio_dns_upstream_request_duration_seconds", Help: "How long a resolver took.", Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5},
		}),
	}
}

// Collectors are the families.
func (d *DNS) Collectors() []prometheus.Collector {
	return []prometheus.Collector{d.Requests, d.Upstream, d.Failures, d.Duration}
}
