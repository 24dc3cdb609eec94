package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// fieldManager is under which name the API server remembers what is ours.
const fieldManager = "ambit"

// writeTimeout is how long the server may take for one object.
const writeTimeout = 30 * time.Second

// Writer keeps objects on the API server by server-side apply: what others say in them stays.
type Writer struct{ api *clients }

// NewWriter makes a writer.
func NewWriter(c *rest.Config) (Writer, error) {
	api, err := newClients(c)
	if err != nil {
		return Writer{}, err
	}
	return Writer{api}, nil
}

// Apply writes an object.
func (w Writer) Apply(ctx context.Context, o kinds.Object) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	k := kinds.Of(o)
	tree, err := treeOf(o)
	if err != nil {
		return err
	}
	_, err = w.api.resource(k, k.Version, o.GetNamespace()).Apply(ctx, o.GetName(), tree, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("apply %s %s/%s: %w", k.Kind, o.GetNamespace(), o.GetName(), err)
	}
	return nil
}

// Create writes an object that must not exist; where it does the error is source.ErrAnother.
func (w Writer) Create(ctx context.Context, o kinds.Object) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	k := kinds.Of(o)
	tree, err := treeOf(o)
	if err != nil {
		return err
	}
	_, err = w.api.resource(k, k.Version, o.GetNamespace()).Create(ctx, tree, metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) {
		err = source.ErrAnother
	}
	if err != nil {
		return fmt.Errorf("create %s %s/%s: %w", k.Kind, o.GetNamespace(), o.GetName(), err)
	}
	return nil
}

// Delete removes an object; one that is not there is no error.
func (w Writer) Delete(ctx context.Context, k kinds.Kind, namespace, name string) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := w.api.resource(k, k.Version, namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s %s/%s: %w", k.Kind, namespace, name, err)
	}
	return nil
}

// Read gives an object; nil for none.
func (w Writer) Read(ctx context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error) {
	o, err := w.api.get(ctx, k, k.Version, namespace, name)
	if o == nil || err != nil {
		return nil, err
	}
	return kinds.FromValue(o)
}

// treeOf is an object as it is sent, without what only a server may say of it.
func treeOf(o kinds.Object) (*unstructured.Unstructured, error) {
	data, err := kinds.EncodeJSON(o)
	if err != nil {
		return nil, err
	}
	tree := &unstructured.Unstructured{}
	if err := json.Unmarshal(data, &tree.Object); err != nil {
		return nil, fmt.Errorf("read %s back: %w", kinds.Of(o).Kind, err)
	}
	meta, _ := tree.Object["metadata"].(map[string]any)
	for name := range meta {
		switch name {
		case "name", "namespace", "labels", "annotations":
		default:
			delete(meta, name)
		}
	}
	return tree, nil
}
