package ztunnel

import (
	"context"
	"time"
)

// releaseEvery is how often the counts of workloads that are gone are looked for.
const releaseEvery = time.Minute

// releaseMetrics lets go what was counted for workloads that are gone: pods come and go for as long as a node runs.
func (z *Ztunnel) releaseMetrics(ctx context.Context) error {
	t := time.NewTicker(releaseEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		owners, canonical := z.state.Owners()
		z.conf.Metrics.TCP.Release(owners.Has)
		z.dns.Release(canonical.Has)
	}
}

// canonical is the canonical service and revision of a pod, empty while it is not known.
func (z *Ztunnel) canonical(namespace, name string) (service, revision string) {
	if w := z.state.Pod(z.conf.ClusterID, namespace, name); w != nil {
		return w.CanonicalName, w.CanonicalRevision
	}
	return "", ""
}
