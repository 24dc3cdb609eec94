package control

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/ambit-mesh/ambit/control/internal/admission"
	"github.com/ambit-mesh/ambit/control/internal/push"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/lifecycle"
)

// Webhook is how an API server is told to ask us about objects, and whether it does.
type Webhook interface {
	// Read gives the configuration; nil for none.
	Read(ctx context.Context) (*admissionregistrationv1.ValidatingWebhookConfiguration, error)
	// Change applies a JSON patch to it.
	Change(ctx context.Context, patch []byte) error
	// Try has the server ask about an object that we refuse; nil if it did, and refused it.
	Try(ctx context.Context) error
}

// How often the webhook is looked after: soon until it is in force, and then so often that whoever breaks it is not in the
// way of others for long. Whether the server still reaches it is tried less often.
const (
	webhookEvery = 2 * time.Second
	webhookLooks = 10 * time.Second
	webhookTries = time.Minute
)

// webhookLinger is how long reviews are answered yet when the control plane ends: nodes lead the API server to a pod that is
// told to end until they have learnt of it, and what it cannot ask about it refuses.
const webhookLinger = 3 * time.Second

// webhook keeps the API server asking.
type webhook struct {
	c         *Control
	authority *authority
	inForce   atomic.Bool // the server asks, and refuses what it cannot ask about

	tried time.Time // owned by keep: when the server was last seen to ask
	told  string    // owned by keep: what was last logged
}

// serveWebhook answers API servers.
func (c *Control) serveWebhook(ctx context.Context, a *authority) error {
	judge := admission.Judge{Reads: c.store.Reads, Foretell: func(o kinds.Object) []string { return push.Foretell(o, c.conf.RootNamespace) }}
	mux := http.NewServeMux()
	mux.Handle("POST /validate", admission.NewHandler(judge, c.conf.Log, c.count.admission))
	conf := a.serverTLS()
	conf.NextProtos = []string{"h2", "http/1.1"}
	return lifecycle.HTTP{TLS: conf, Linger: webhookLinger}.Serve(ctx, c.conf.Validation, mux)
}

// keep has the API server trust our roots and, once it was seen to ask, refuse what it cannot ask about.
func (w *webhook) keep(ctx context.Context) error {
	roots, stop := w.authority.watch()
	defer stop()
	defer w.inForce.Store(false) // another knows better now
	w.tried, w.told = time.Time{}, ""
	for {
		err := w.mend(ctx, time.Now())
		if ctx.Err() == nil {
			w.tell(err)
		}
		wait := webhookLooks
		if err != nil {
			wait = webhookEvery
		}
		if !sleep(ctx, roots, wait) {
			return nil
		}
	}
}

func (w *webhook) tell(err error) {
	w.inForce.Store(err == nil)
	now := "in force"
	if err != nil {
		now = err.Error()
	}
	if now == w.told {
		return
	}
	if w.told = now; err != nil {
		w.c.conf.Log.Warn("the API server may take objects of the mesh that are not valid", "why", err)
		return
	}
	w.c.conf.Log.Info("the API server asks before it takes objects of the mesh")
}

var errNoWebhook = errors.New("there is no ValidatingWebhookConfiguration for it")

// mend brings the configuration up to date. The error is why the webhook is not in force, or not known to be.
func (w *webhook) mend(ctx context.Context, now time.Time) error {
	c, err := w.c.conf.Webhook.Read(ctx)
	if err != nil {
		return err
	}
	if c == nil {
		return errNoWebhook
	}
	patch, err := admission.Mended(c, w.authority.roots(), false)
	if err != nil {
		return err
	}
	if patch != nil {
		w.c.conf.Log.Info("the API server is told what certificates its webhook has", "configuration", c.Name)
		w.tried = time.Time{}
		if err := w.c.conf.Webhook.Change(ctx, patch); err != nil {
			return err
		}
		if c, err = w.c.conf.Webhook.Read(ctx); err != nil || c == nil {
			return errors.Join(err, errNoWebhook)
		}
	}
	if admission.Refuses(c) && now.Sub(w.tried) < webhookTries {
		return nil
	}
	if err := w.c.conf.Webhook.Try(ctx); err != nil {
		return err
	}
	w.tried = now
	if patch, err = admission.Mended(c, w.authority.roots(), true); err != nil || patch == nil {
		return err
	}
	w.c.conf.Log.Info("the API server was seen to ask, from now on it refuses what it cannot ask about", "configuration", c.Name)
	return w.c.conf.Webhook.Change(ctx, patch)
}
