package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// WebhookConfig says which webhook of an API server is ours.
type WebhookConfig struct {
	REST *rest.Config
	// Name of its ValidatingWebhookConfiguration.
	Name string
	// Namespace is where the control plane runs, and where an object is tried out.
	Namespace string
	// Revision is of objects that it is asked about; "" for those that name none.
	Revision string
}

// Webhook is how an API server is told to ask a control plane about objects.
type Webhook struct {
	conf WebhookConfig
	api  *clients
}

// NewWebhook makes a Webhook.
func NewWebhook(c WebhookConfig) (*Webhook, error) {
	api, err := newClients(c.REST)
	if err != nil {
		return nil, err
	}
	return &Webhook{c, api}, nil
}

func (w *Webhook) resource() dynamic.ResourceInterface {
	return w.api.any.Resource(schema.GroupVersionResource{
		Group: admissionregistrationv1.GroupName, Version: "v1", Resource: "validatingwebhookconfigurations",
	})
}

// Read gives the configuration; nil for none.
func (w *Webhook) Read(ctx context.Context) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	o, err := w.resource().Get(ctx, w.conf.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ValidatingWebhookConfiguration %s: %w", w.conf.Name, err)
	}
	data, err := o.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("write ValidatingWebhookConfiguration %s: %w", w.conf.Name, err)
	}
	out := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("read ValidatingWebhookConfiguration %s: %w", w.conf.Name, err)
	}
	return out, nil
}

// Change applies a JSON patch to the configuration.
func (w *Webhook) Change(ctx context.Context, patch []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if _, err := w.resource().Patch(ctx, w.conf.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager}); err != nil {
		return fmt.Errorf("change ValidatingWebhookConfiguration %s: %w", w.conf.Name, err)
	}
	return nil
}

// tried is the host that no valid object has.
const tried = "no host: the webhook is tried"

// ErrUnasked tells that the API server would have written an object without asking about it.
var ErrUnasked = errors.New("the API server does not ask, or not yet; it must reach the Service of the control plane on port 443")

// Try has the API server ask about an object that must be refused, without writing it. It is nil if it was refused by us.
func (w *Webhook) Try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	k, _ := kinds.Find("gateways.networking.istio.io")
	meta := map[string]any{"name": "ambit-tries-its-webhook", "namespace": w.conf.Namespace}
	if w.conf.Revision != "" {
		meta["labels"] = map[string]any{"istio.io/rev": w.conf.Revision}
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": k.APIVersion(), "kind": k.Kind, "metadata": meta,
		"spec": map[string]any{"servers": []any{map[string]any{
			"port": map[string]any{"number": int64(80), "name": "http", "protocol": "HTTP"}, "hosts": []any{tried},
		}}},
	}}
	_, err := w.api.resource(k, k.Version, w.conf.Namespace).Create(ctx, o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: fieldManager})
	switch {
	case err == nil:
		return ErrUnasked
	case strings.Contains(err.Error(), "denied the request") && strings.Contains(err.Error(), tried):
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s is not served, so nothing can be tried: %w", k.Resource(), err)
	}
	return fmt.Errorf("try the webhook: %w", err)
}
