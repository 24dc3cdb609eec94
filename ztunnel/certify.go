package ztunnel

import (
	"context"
	"time"

	"github.com/ambit-mesh/ambit/mesh"
)

// certifyWithin is how long readiness waits for certificates: one that cannot be issued must not keep us out for ever.
const certifyWithin = 20 * time.Second

// configWithin is how long pods wait to be served for the control plane's first answer.
const configWithin = 5 * time.Second

// configured waits for the first configuration before pods are asked for: in a rolling restart we share their ports with
// a predecessor from then on, and must not answer a query for a name that we have only not heard of yet.
func (z *Ztunnel) configured(ctx context.Context) {
	t := time.NewTimer(configWithin)
	defer t.Stop()
	for _, typeURL := range []string{mesh.TypeAddress, mesh.TypeAuthorization} {
		select {
		case <-z.xds.Synced(typeURL):
		case <-ctx.Done():
			return
		case <-t.C:
			z.conf.Log.Warn("pods are served without configuration, connections wait for it", "missing", typeURL, "waited", configWithin)
			return
		}
	}
}

// synced makes what is to be done when the agent has named all pods.
func (z *Ztunnel) synced(done func()) func() {
	return func() {
		close(z.listed)
		done()
	}
}

// certify waits until the pods that the agent has named have their certificates. We are ready then and not before, so
// that in a rolling restart a predecessor that has them all goes on for as long as the authority is away.
func (z *Ztunnel) certify(done func()) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-z.listed:
		case <-ctx.Done():
			return nil
		}
		within, cancel := context.WithTimeout(ctx, certifyWithin)
		defer cancel()
		missing := 0
		for _, e := range z.certs.Entries() {
			if _, err := z.certs.SVID(within, e.ID); err != nil {
				missing++
			}
		}
		if missing > 0 && ctx.Err() == nil {
			z.conf.Log.Warn("ready without all certificates, connections wait for those that are missing", "missing", missing, "waited", certifyWithin)
		}
		done()
		return nil
	}
}
