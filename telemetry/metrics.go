package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics is a registry of its own, with the families that every daemon has.
type Metrics struct {
	registry *prometheus.Registry
	TCP      *TCP
	CRL      CRL
	XDS      XDS
	Proxies  Proxies
}

// CRL counts what revocation lists did to connections, by reporter: "source" or "destination".
type CRL struct {
	Rejections *prometheus.CounterVec // connections that a revoked certificate ended
	Untracked  *prometheus.CounterVec // connections that could not be followed
}

// XDS counts what came from the control plane.
type XDS struct {
	Terminations *prometheus.CounterVec // by reason
	Messages     *prometheus.CounterVec // by url
	Bytes        *prometheus.CounterVec // by url
}

// Proxies counts the pods that a node proxy serves.
type Proxies struct {
	Active, Pending  prometheus.Gauge
	Started, Stopped prometheus.Counter
}

// NewMetrics makes the families of a component, such as "ztunnel", of the given version.
func NewMetrics(component, version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		TCP:      newTCP(maxSeries),
		CRL: CRL{
			Rejections: counters("istio_crl_policy_rejections_total", "The total number of connections rejected due to CRL certificate revocation (unstable).", "reporter"),
			Untracked:  counters("istio_crl_untracked_connections_total", "The total number of connections not tracked for CRL enforcement (unstable).", "reporter"),
		},
		XDS: XDS{
			Terminations: counters("istio_xds_connection_terminations_total", "The total number of completed connections to xds server (unstable).", "reason"),
			Messages:     counters("istio_xds_message_total", "Total number of messages received (unstable).", "url"),
			Bytes:        counters("istio_xds_message_bytes_total", "Total number of bytes received (unstable).", "url"),
		},
		Proxies: Proxies{
			Active:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "istio_active_proxy_count", Help: "The total number current workloads with active proxies (unstable)."}),
			Pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "istio_pending_proxy_count", Help: "The total number current workloads with pending proxies (unstable)."}),
			Started: prometheus.NewCounter(prometheus.CounterOpts{Name: "istio_proxies_started_total", Help: "The total number of proxies that were started (unstable)."}),
			Stopped: prometheus.NewCounter(prometheus.CounterOpts{Name: "istio_proxies_stopped_total", Help: "The total number of proxies that were stopped (unstable)."}),
		},
	}
	m.registry.MustRegister(Build(component, version), m.CRL.Rejections, m.CRL.Untracked, m.XDS.Terminations, m.XDS.Messages, m.XDS.Bytes,
		m.Proxies.Active, m.Proxies.Pending, m.Proxies.Started, m.Proxies.Stopped,
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	return m
}

// Build says which version of a component this is.
func Build(component, version string) prometheus.Collector {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "istio_build", Help: "Istio component build info."}, []string{"component", "tag"})
	build.WithLabelValues(component, version).Set(1)
	return build
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Register adds families of a daemon's own.
func (m *Metrics) Register(cs ...prometheus.Collector) error {
	for _, c := range cs {
		if err := m.registry.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}
