package kube

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// statusManager is under which name the API server remembers what we say of objects.
const statusManager = "ambit-status"

// routeTries is how often a route's status is merged anew when others write it at the same time.
const routeTries = 5

// StatusWriter writes the status of objects by server-side apply, in the version that the server serves.
type StatusWriter struct {
	s *Source
	// Controller is the name under which routes know us: their status is a list in which each controller has its entries.
	controller string
}

// Status is a writer of the status of what the source reads.
func (s *Source) Status() StatusWriter { return StatusWriter{s, mesh.GatewayController} }

// Apply writes what is said of an object. Of one that is gone nothing is said.
func (w StatusWriter) Apply(ctx context.Context, o kinds.Object) error {
	data, err := kinds.EncodeJSON(o)
	if err != nil {
		return err
	}
	tree := map[string]any{}
	if err := json.Unmarshal(data, &tree); err != nil {
		return fmt.Errorf("read the status back: %w", err)
	}
	status, _ := tree["status"].(map[string]any)
	return w.write(ctx, kinds.Of(o), o.GetNamespace(), o.GetName(), status)
}

// Delete takes back what was said of an object.
func (w StatusWriter) Delete(ctx context.Context, k kinds.Kind, namespace, name string) error {
	return w.write(ctx, k, namespace, name, nil)
}

// Read gives an object with the status that it has, whatever else is in it; nil for none.
func (w StatusWriter) Read(ctx context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error) {
	o, err := w.s.api.get(ctx, k, w.s.version(k), namespace, name)
	if o == nil || err != nil {
		return nil, err
	}
	delete(o, "spec")
	return kinds.FromValue(o)
}

func (w StatusWriter) write(ctx context.Context, k kinds.Kind, namespace, name string, status map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	version := w.s.version(k)
	at := k
	at.Version = version
	tree := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": at.APIVersion(), "kind": k.Kind, "metadata": map[string]any{"name": name, "namespace": namespace},
	}}
	to := w.s.api.resource(k, version, namespace)
	var err error
	for range routeTries {
		if status != nil {
			tree.Object["status"] = status
		}
		if isRoute(k) {
			var current *unstructured.Unstructured
			if current, err = to.Get(ctx, name, metav1.GetOptions{}); err != nil {
				break
			}
			tree.Object["status"] = map[string]any{"parents": w.parents(current.Object, status)}
			tree.SetResourceVersion(current.GetResourceVersion()) // who wrote in between is not overwritten
		}
		_, err = to.ApplyStatus(ctx, name, tree, metav1.ApplyOptions{FieldManager: statusManager, Force: true})
		if !isRoute(k) || !apierrors.IsConflict(err) {
			break
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("say of %s %s/%s: %w", k.Kind, namespace, name, err)
	}
	return nil
}

// parents are the entries of other controllers, and ours.
func (w StatusWriter) parents(current, status map[string]any) []any {
	out := []any{}
	old, _ := current["status"].(map[string]any)
	was, _ := old["parents"].([]any)
	for _, p := range was {
		if p, ok := p.(map[string]any); ok && p["controllerName"] != w.controller {
			out = append(out, p)
		}
	}
	ours, _ := status["parents"].([]any)
	return append(out, ours...)
}

func isRoute(k kinds.Kind) bool {
	switch k.Kind {
	case "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute":
		return true
	}
	return false
}

// version is that in which the server serves a kind.
func (s *Source) version(k kinds.Kind) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.intakes {
		if in.Resource() == k.Resource() && in.version != "" {
			return in.version
		}
	}
	return k.Version
}
