package control

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// newAdmission makes the metrics of the validating webhook, under Istio's names where it has them.
func (m *metrics) newAdmission() {
	labels := []string{"group", "version", "resource"}
	m.passed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "galley_validation_passed", Help: "Objects that the webhook found valid."}, labels)
	m.failed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "galley_validation_failed", Help: "Objects that the webhook refused."}, labels)
	m.notReviewed = prometheus.NewCounter(prometheus.CounterOpts{Name: "galley_validation_http_error", Help: "Requests to the webhook that were no admission reviews."})
	m.review = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "ambit_validation_seconds", Help: "Seconds from a request to the webhook to its answer.", Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10},
	})
	m.registry.MustRegister(m.passed, m.failed, m.notReviewed, m.review)
}

// admission counts an answer of the webhook. Only kinds that are known are told apart: anybody may ask.
func (m *metrics) admission(k kinds.Kind, reviewed, allowed bool, took time.Duration) {
	if !reviewed {
		m.notReviewed.Inc()
		return
	}
	to := m.failed
	if allowed {
		to = m.passed
	}
	to.WithLabelValues(k.Group, k.Version, k.Plural).Inc()
	m.review.Observe(took.Seconds())
}

// watchWebhook tells whether the webhook is in force.
func (m *metrics) watchWebhook(inForce func() bool) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ambit_webhook_in_force", Help: "1 at the leader while the API server is known to ask the webhook, and to refuse what it cannot ask about.",
	}, func() float64 {
		if inForce() {
			return 1
		}
		return 0
	}))
}
