package telemetry

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is a registry of its own, with the families that every daemon has.
type Metrics struct {
	registry *prometheus.Registry
	TCP      *TCP
	XDS      XDS
	Proxies  Proxies
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
		XDS: XDS{
			Terminations: counters("istio_xds_connection_terminations_total", "Streams to the control plane that ended, by reason.", "reason"),
			Messages:     counters("istio_xds_message_total", "Messages from the control plane, by resource type.", "url"),
			Bytes:        counters("istio_xds_message_bytes_total", "Bytes from the control plane, by resource type.", "url"),
		},
		Proxies: Proxies{
			Active:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "istio_active_proxy_count", Help: "Pods whose proxy is running."}),
			Pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "istio_pending_proxy_count", Help: "Pods whose proxy could not be started yet."}),
			Started: prometheus.NewCounter(prometheus.CounterOpts{Name: "istio_proxies_started_total", Help: "Proxies of pods that were started."}),
			Stopped: prometheus.NewCounter(prometheus.CounterOpts{Name: "istio_proxies_stopped_total", Help: "Proxies of pods that were stopped."}),
		},
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "istio_build", Help: "The version that runs."}, []string{"component", "tag"})
	build.WithLabelValues(component, version).Set(1)
	m.registry.MustRegister(m.TCP, build, m.XDS.Terminations, m.XDS.Messages, m.XDS.Bytes,
		m.Proxies.Active, m.Proxies.Pending, m.Proxies.Started, m.Proxies.Stopped,
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	return m
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

// Handler serves the registry as text or OpenMetrics, whichever the client accepts.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4})
}

// Gather is the registry for other readers.
func (m *Metrics) Gather() prometheus.Gatherer { return m.registry }
