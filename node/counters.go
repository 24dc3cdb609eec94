package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/node/internal/zds"
)

// counters are the agent's metrics, under Istio's names where it has them.
type counters struct {
	registry           *prometheus.Registry
	events             *prometheus.CounterVec
	installs           *prometheus.CounterVec
	looks              *prometheus.CounterVec
	enrolled, released prometheus.Counter
}

func newCounters(s *zds.Server, ready func() bool, pluginToken func() float64) *counters {
	c := &counters{
		registry: prometheus.NewRegistry(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_cni_plugin_requests_total", Help: "New pods that the plugin told of, by answer.",
		}, []string{"response_code"}),
		installs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_cni_installs_total", Help: "Installations of the plugin on the host, by result.",
		}, []string{"result"}),
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nodeagent_reconcile_events_total", Help: "Changes of pods and namespaces that were looked at, by type.",
		}, []string{"type"}),
		enrolled: prometheus.NewCounter(prometheus.CounterOpts{Name: "ambit_node_pods_enrolled_total", Help: "Pods captured."}),
		released: prometheus.NewCounter(prometheus.CounterOpts{Name: "ambit_node_pods_released_total", Help: "Captured pods that ended or left the mesh."}),
	}
	connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ztunnel_connected", Help: "Node proxies connected."},
		func() float64 { return float64(s.Connected()) })
	installed := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "istio_cni_install_ready", Help: "1 when the agent is ready and its plugin in place."},
		func() float64 {
			if ready() {
				return 1
			}
			return 0
		})
	token := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_node_plugin_token_expiry_timestamp_seconds", Help: "When the plugin's own token ends, as Unix time; 0 while it has the agent's.",
	}, pluginToken)
	c.registry.MustRegister(c.events, c.installs, c.looks, c.enrolled, c.released, connected, installed, token)
	return c
}
