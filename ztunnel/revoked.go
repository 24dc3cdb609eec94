package ztunnel

import (
	"crypto/x509"

	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/proxy"
)

// recheck has the peers of every pod's open tunnels judged again.
func (z *Ztunnel) recheck(judge func(chain []*x509.Certificate) error) {
	z.mu.Lock()
	all := make([]*proxy.Proxy, 0, len(z.proxies))
	for _, r := range z.proxies {
		all = append(all, r.proxy)
	}
	z.mu.Unlock()
	for _, p := range all {
		p.Recheck(judge)
	}
}

// failed keeps what went wrong for those who ask, and counts revocations.
func (z *Ztunnel) failed(r telemetry.Record) {
	z.failures.add(r)
	if r.Flag == telemetry.CertRevoked {
		reporter := "source"
		if r.Direction == telemetry.Inbound {
			reporter = "destination"
		}
		z.conf.Metrics.CRL.Rejections.WithLabelValues(reporter).Inc()
	}
}
