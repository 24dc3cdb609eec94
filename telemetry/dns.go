package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DNS counts what the DNS proxies of a node's pods are asked.
type DNS struct {
	requests, upstream, failures *prometheus.CounterVec
	duration                     *prometheus.HistogramVec
	onDemand                     *prometheus.CounterVec

	mu   sync.Mutex // guards seen
	seen map[source]struct{}
}

type source struct{ service, revision string }

// Question is what is asked, in lower case, and the canonical service of who asks.
type Question struct{ Type, Protocol, Service, Revision string }

// NewDNS makes the families, which Metrics.Register takes in.
func NewDNS() *DNS {
	labels := []string{"request_query_type", "request_protocol", "source_canonical_service", "source_canonical_revision"}
	return &DNS{
		requests: counters("istio_dns_requests_total", "Total number of DNS requests (unstable).", labels...),
		upstream: counters("istio_dns_upstream_requests_total", "Total number of DNS requests forwarded to upstream (unstable).", labels...),
		failures: counters("istio_dns_upstream_failures_total", "Total number of DNS requests that failed to forward upstream (unstable).", labels...),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "istio_dns_upstream_request_duration_seconds", Help: "Total time in seconds Istio takes to get DNS response from upstream (unstable).",
			Buckets: []float64{.0005, .001, .01, .1, 1, 5}, // Istio's
		}, labels),
		onDemand: counters(
			"istio_on_demand_dns_total", "The total number of requests that used on-demand DNS (unstable).", "source_workload", "source_canonical_service",
			"source_canonical_revision", "source_workload_namespace", "source_principal", "source_app", "source_version", "source_cluster", "hostname",
		),
		seen: map[source]struct{}{},
	}
}

// Collectors are the families.
func (d *DNS) Collectors() []prometheus.Collector {
	return []prometheus.Collector{d.requests, d.upstream, d.failures, d.duration, d.onDemand}
}

func (q Question) labels() []string {
	return []string{known(q.Type), known(q.Protocol), known(q.Service), known(q.Revision)}
}

func known(s string) string {
	if s == "" {
		return unknown
	}
	return s
}

// Asked counts a question.
func (d *DNS) Asked(q Question) {
	d.mu.Lock()
	d.seen[source{known(q.Service), known(q.Revision)}] = struct{}{}
	d.mu.Unlock()
	d.requests.WithLabelValues(q.labels()...).Inc()
}

// Forwarded counts a question that resolvers were asked, how long they took, and whether none answered.
func (d *DNS) Forwarded(q Question, took time.Duration, failed bool) {
	l := q.labels()
	d.upstream.WithLabelValues(l...).Inc()
	d.duration.WithLabelValues(l...).Observe(took.Seconds())
	if failed {
		d.failures.WithLabelValues(l...).Inc()
	}
}

// Resolved counts an endpoint's host name that was looked up for a connection. The names are of the configuration, so
// they are few.
func (d *DNS) Resolved(p Party, host string) {
	d.onDemand.WithLabelValues(
		known(p.Workload), known(p.CanonicalName), known(p.CanonicalRevision), known(p.Namespace), known(p.Account.String()),
		known(p.CanonicalName), known(p.CanonicalRevision), known(p.Cluster), known(host),
	).Inc()
}

// Release forgets what was counted for canonical services that are gone.
func (d *DNS) Release(alive func(service, revision string) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.seen {
		if s.service == unknown || alive(s.service, s.revision) {
			continue
		}
		delete(d.seen, s)
		l := prometheus.Labels{"source_canonical_service": s.service, "source_canonical_revision": s.revision}
		for _, v := range []interface{ DeletePartialMatch(prometheus.Labels) int }{d.requests, d.upstream, d.failures, d.duration, d.onDemand} {
			v.DeletePartialMatch(l)
		}
	}
}
