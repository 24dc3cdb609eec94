package telemetry

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// maxSeries bounds the label sets that connections can create; above it, new ones count under "unknown" labels.
// A label set costs about 1 KiB.
const maxSeries = 4096

// labelNames are those of Istio's TCP metrics, in one order for all.
func labelNames() []string {
	return []string{
		"reporter",
		"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
		"source_principal", "source_app", "source_version", "source_cluster",
		"destination_service", "destination_service_namespace", "destination_service_name",
		"destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace",
		"destination_principal", "destination_app", "destination_version", "destination_cluster",
		"request_protocol", "response_flags", "connection_security_policy",
		"source_region", "source_zone", "destination_region", "destination_zone",
	}
}

const labelCount = 27

// localities is where the labels begin that are empty, and so absent, when unknown.
const localities = 23

type labels [labelCount]string

func labelsOf(r *Record) labels {
	reporter := "source"
	if r.Direction == Inbound {
		reporter = "destination"
	}
	security := "unknown"
	if r.Mutual {
		security = "mutual_tls"
	}
	s, d := &r.Src, &r.Dst
	l := labels{
		reporter,
		s.Workload, s.CanonicalName, s.CanonicalRevision, s.Namespace,
		s.Identity.String(), s.CanonicalName, s.CanonicalRevision, s.Cluster,
		r.Service.Host, r.Service.Namespace, r.Service.Name,
		d.Workload, d.CanonicalName, d.CanonicalRevision, d.Namespace,
		d.Identity.String(), d.CanonicalName, d.CanonicalRevision, d.Cluster,
		"tcp", r.Flag.String(), security,
		s.Region, s.Zone, d.Region, d.Zone,
	}
	for i := range l[:localities] {
		if l[i] == "" {
			l[i] = "unknown"
		}
	}
	return l
}

// TCP counts connections and their bytes. It is its own collector: a connection costs one map look-up.
type TCP struct {
	descs struct{ opened, closed, received, sent, failed, sockets *prometheus.Desc }
	max   int
	open  [2]atomic.Int64 // sockets, by direction

	mu     sync.RWMutex // guards below
	series map[labels]*series
}

type series struct {
	opened, closed, failed, sent, received atomic.Uint64
	live                                   atomic.Int64
}

func newTCP(most int) *TCP {
	t := &TCP{max: most, series: map[labels]*series{}}
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labelNames(), nil)
	}
	t.descs.opened = desc("istio_tcp_connections_opened_total", "Connections that were opened.")
	t.descs.closed = desc("istio_tcp_connections_closed_total", "Connections that were closed.")
	t.descs.received = desc("istio_tcp_received_bytes_total", "Bytes that the reporter's side received.")
	t.descs.sent = desc("istio_tcp_sent_bytes_total", "Bytes that the reporter's side sent.")
	t.descs.failed = desc("istio_tcp_connections_failed_total", "Connections that failed before they carried anything.")
	t.descs.sockets = prometheus.NewDesc("istio_tcp_sockets_open", "Application sockets that are open.", []string{"reporter"}, nil)
	return t
}

// Opened counts a connection that is open now. The returned function counts its end, once, with the bytes of the
// record as they are then.
func (t *TCP) Opened(r *Record) (closed func()) {
	s := t.find(labelsOf(r))
	s.live.Add(1)
	s.opened.Add(1)
	t.open[r.Direction].Add(1)
	return sync.OnceFunc(func() {
		// Istio's source reporter counts the request direction as received; dashboards rely on it.
		s.received.Add(r.Sent)
		s.sent.Add(r.Received)
		s.closed.Add(1)
		s.live.Add(-1)
		t.open[r.Direction].Add(-1)
	})
}

// Failed counts a connection that never opened.
func (t *TCP) Failed(r *Record) { t.find(labelsOf(r)).failed.Add(1) }

func (t *TCP) find(l labels) *series {
	t.mu.RLock()
	s := t.series[l]
	t.mu.RUnlock()
	if s != nil {
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s = t.series[l]; s != nil {
		return s
	}
	if len(t.series) >= t.max {
		for i := range l {
			if i == 0 || i >= 20 && i < localities {
				continue
			}
			l[i] = "unknown"
			if i >= localities {
				l[i] = ""
			}
		}
		if s = t.series[l]; s != nil {
			return s
		}
	}
	s = &series{}
	t.series[l] = s
	return s
}

// Describe implements prometheus.Collector.
func (t *TCP) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{t.descs.opened, t.descs.closed, t.descs.received, t.descs.sent, t.descs.failed, t.descs.sockets} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (t *TCP) Collect(out chan<- prometheus.Metric) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for l, s := range t.series {
		counter := func(d *prometheus.Desc, v uint64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), l[:]...)
		}
		if opened := s.opened.Load(); opened > 0 {
			counter(t.descs.opened, opened)
			counter(t.descs.closed, s.closed.Load())
			counter(t.descs.received, s.received.Load())
			counter(t.descs.sent, s.sent.Load())
		}
		if failed := s.failed.Load(); failed > 0 {
			counter(t.descs.failed, failed)
		}
	}
	for d, name := range []string{"source", "destination"} {
		out <- prometheus.MustNewConstMetric(t.descs.sockets, prometheus.GaugeValue, float64(t.open[d].Load()), name)
	}
}
