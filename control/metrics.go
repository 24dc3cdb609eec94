package control

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ambit-mesh/ambit/control/internal/ca"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/meshconfig"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/server"
)

// metrics are the control plane's own, under Istio's names where it has them.
type metrics struct {
	registry *prometheus.Registry

	pushes, rejects, triggers, inbound     *prometheus.CounterVec
	pushTime, configSize                   *prometheus.HistogramVec
	converge, queue, debounce, contextInit prometheus.Histogram
	certs                                  map[string]prometheus.Counter // by result of a request
	requests                               prometheus.Counter
	results                                *prometheus.CounterVec
	passed, failed                         *prometheus.CounterVec
	notReviewed                            prometheus.Counter
	review                                 prometheus.Histogram
}

// seconds are bounds from a millisecond to half a minute.
func seconds() []float64 {
	return []float64{.001, .003, .01, .03, .1, .3, 1, 3, 5, 10, 20, 30}
}

func newMetrics(version string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), certs: map[string]prometheus.Counter{}}
	counters := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		m.registry.MustRegister(c)
		return c
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds()})
		m.registry.MustRegister(h)
		return h
	}
	byType := func(name, help string, bounds []float64) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds}, []string{"type"})
		m.registry.MustRegister(h)
		return h
	}
	m.pushes = counters("pilot_xds_pushes", "Responses sent to proxies, by type.", "type")
	m.rejects = counters("pilot_total_xds_rejects", "Responses that proxies refused, by type.", "type")
	m.triggers = counters("pilot_push_triggers", "Changes of objects that led to pushes, by what changed.", "type")
	m.inbound = counters("pilot_inbound_updates", "Objects that changed, by kind of change.", "type")
	m.pushTime = byType("pilot_xds_push_time", "Seconds to write a response to a proxy.", seconds())
	m.configSize = byType("pilot_xds_config_size_bytes", "Size of responses in bytes.", []float64{1e3, 1e4, 1e5, 1e6, 4e6, 1e7, 4e7})
	m.converge = histogram("pilot_proxy_convergence_time", "Seconds from a change until a proxy has taken it in.")
	m.queue = histogram("pilot_proxy_queue_time", "Seconds from a change until its response leaves.")
	m.debounce = histogram("pilot_debounce_time", "Seconds that the first of a batch of changes waited for the others.")
	m.contextInit = histogram("pilot_pushcontext_init_seconds", "Seconds to derive what proxies need from a batch of changes.")

	m.requests = counter("citadel_server_csr_count", "Certificate requests.")
	for result, name := range map[string]string{
		"success":          "citadel_server_success_cert_issuance_count",
		"unauthenticated":  "citadel_server_authentication_failure_count",
		"refused_csr":      "citadel_server_csr_parsing_err_count",
		"refused_identity": "citadel_server_id_extraction_err_count",
		"sign_error":       "citadel_server_csr_sign_err_count",
	} {
		m.certs[result] = counter(name, "Certificate requests that ended so: "+strings.ReplaceAll(result, "_", " ")+".")
	}
	m.results = counters("ambit_ca_requests_total", "Certificate requests by result.", "result")
	m.newAdmission()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "istio_build", Help: "Version of this component.", ConstLabels: prometheus.Labels{"component": "pilot", "tag": version},
	})
	build.Set(1)
	m.registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch registers what is read off the parts when somebody asks.
func (m *metrics) watch(version string, services, refused func() int, xds *server.Server[source.Caller], a *authority) {
	gauge := func(name, help string, labels prometheus.Labels, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f))
	}
	gauge("pilot_services", "Services known.", nil, func() float64 { return float64(services()) })
	gauge("pilot_xds", "Proxies connected.", prometheus.Labels{"version": version}, func() float64 { return float64(len(xds.Subscribers())) })
	gauge("ambit_source_refused_files", "Files of objects that do not count as they are now; see /debug/filez.", nil, func() float64 { return float64(refused()) })
	gauge("citadel_server_root_cert_expiry_timestamp", "When the root certificate ends, in Unix seconds.", nil, func() float64 {
		return float64(a.report().root.NotAfter.Unix())
	})
	gauge("citadel_server_cert_chain_expiry_timestamp", "When the first certificate of the signing chain ends, in Unix seconds.", nil, func() float64 {
		return float64(a.report().chainEnds.Unix())
	})
	for _, phase := range []ca.Phase{ca.Stable, ca.Distributing, ca.Retiring} {
		gauge("ambit_ca_rotation_phase", "1 for the phase that the rotation of the CA is in.", prometheus.Labels{"phase": string(phase)}, func() float64 {
			if a.report().Phase == phase {
				return 1
			}
			return 0
		})
	}
	gauge("ambit_ca_problem", "1 while the CA's Secret, as it is, is not taken over.", nil, func() float64 {
		if a.report().Problem != "" {
			return 1
		}
		return 0
	})
}

// watchMesh tells of the mesh configuration.
func (m *metrics) watchMesh(f *meshconfig.File) {
	if f == nil {
		return
	}
	for name, g := range map[string]struct {
		help string
		read func(meshconfig.Report) int
	}{
		"ambit_mesh_config_unused_fields":  {"Fields of the mesh configuration that are set and have no effect; see /debug/mesh.", func(r meshconfig.Report) int { return len(r.Unused) }},
		"ambit_mesh_config_waiting_fields": {"Fields of the mesh configuration that count when the control plane begins again.", func(r meshconfig.Report) int { return len(r.Waiting) }},
		"ambit_mesh_config_refused": {"1 while the mesh configuration as it is now does not count.", func(r meshconfig.Report) int {
			return min(1, len(r.Refused))
		}},
	} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: g.help}, func() float64 { return float64(g.read(f.Report())) }))
	}
}

func (m *metrics) certificate(result string) {
	m.requests.Inc()
	m.results.WithLabelValues(result).Inc()
	if c, ok := m.certs[result]; ok {
		c.Inc()
	}
}

func (m *metrics) sent(s server.Sent) {
	t := short(s.Type)
	m.pushes.WithLabelValues(t).Inc()
	m.pushTime.WithLabelValues(t).Observe(s.Took.Seconds())
	m.configSize.WithLabelValues(t).Observe(float64(s.Bytes))
	m.queue.Observe(s.Waited.Seconds())
}

func (m *metrics) heard(h server.Heard) {
	if h.Refused {
		m.rejects.WithLabelValues(short(h.Type)).Inc()
		return
	}
	m.converge.Observe(h.After.Seconds())
}

// applied is told of each batch of objects.
func (m *metrics) applied(b source.Batch) {
	m.debounce.Observe(b.Waited.Seconds())
	m.contextInit.Observe(b.Took.Seconds())
	what := map[string]int{}
	for kind, n := range b.Kinds {
		switch kind {
		case "Pod", "EndpointSlice", "WorkloadEntry", "Node":
			what["endpoint"] += n
		case "Service", "ServiceEntry":
			what["service"] += n
		default:
			what["config"] += n
		}
	}
	for word, in := range map[string]string{"endpoint": "eds", "service": "svc", "config": "config"} {
		if n := what[word]; n > 0 {
			m.triggers.WithLabelValues(word).Inc()
			m.inbound.WithLabelValues(in).Add(float64(n))
		}
	}
}

// short is what Istio's metrics call a type of resource.
func short(url string) string {
	switch url {
	case mesh.TypeAddress, mesh.TypeWorkload:
		return "wds"
	case mesh.TypeAuthorization:
		return "wads"
	}
	return strings.ToLower(url[strings.LastIndexByte(url, '.')+1:])
}
