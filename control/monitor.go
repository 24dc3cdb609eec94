package control

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/xds/server"
)

// counters are the control plane's own metrics, under Istio's names.
type counters struct {
	registry *prometheus.Registry
	certs    *prometheus.CounterVec
	issued   prometheus.Counter
}

func newCounters(version string) *counters {
	c := &counters{
		registry: prometheus.NewRegistry(),
		certs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "citadel_server_certificate_requests_total", Help: "Certificate requests by result.",
		}, []string{"result"}),
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "citadel_server_success_cert_issuance_count", Help: "Certificates issued.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "istio_build", Help: "Version of this component.", ConstLabels: prometheus.Labels{"component": "pilot", "tag": version},
	})
	build.Set(1)
	c.registry.MustRegister(c.certs, c.issued, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return c
}

func (c *counters) certificate(result string) {
	c.certs.WithLabelValues(result).Inc()
	if result == "success" {
		c.issued.Inc()
	}
}

// readiness answers /ready for the kubelet, and nothing else.
func (c *Control) readiness() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if p := c.ready.Pending(); len(p) > 0 {
			http.Error(w, "not ready, pending: "+strings.Join(p, ", "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return mux
}

// monitor serves metrics and the version to anybody, and who is subscribed to what to callers from this machine.
func (c *Control) monitor(xds *server.Server[source.Caller]) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.count.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, c.conf.Version) })
	mux.HandleFunc("GET /debug/syncz", func(w http.ResponseWriter, r *http.Request) {
		if !fromHere(r) {
			http.Error(w, "only from this pod", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(xds.Subscribers()); err != nil {
			c.conf.Log.Debug("syncz not sent", "error", err)
		}
	})
	return mux
}

func fromHere(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && net.ParseIP(host).IsLoopback()
}
