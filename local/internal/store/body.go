package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// body is an object as JSON, in parts that are compared separately.
type body struct {
	meta, status, rest []byte
}

func bodyOf(o kinds.Object) (body, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return body{}, fmt.Errorf("write %s as JSON: %w", o.GetName(), err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return body{}, fmt.Errorf("read %s back: %w", o.GetName(), err)
	}
	b := body{status: fields["status"]}
	delete(fields, "status")
	delete(fields, "metadata")
	if b.rest, err = json.Marshal(fields); err != nil {
		return body{}, fmt.Errorf("write %s as JSON: %w", o.GetName(), err)
	}
	meta := copyOf(o)
	meta.SetResourceVersion("")
	meta.SetManagedFields(nil)
	if b.meta, err = json.Marshal(metaOf(meta)); err != nil {
		return body{}, fmt.Errorf("write the metadata of %s as JSON: %w", o.GetName(), err)
	}
	return b, nil
}

func (b body) equal(c body) bool {
	return bytes.Equal(b.rest, c.rest) && bytes.Equal(b.status, c.status) && bytes.Equal(b.meta, c.meta)
}

// metaOf is the metadata field that every object has.
func metaOf(o kinds.Object) *metav1.ObjectMeta {
	return reflect.ValueOf(o).Elem().FieldByName("ObjectMeta").Addr().Interface().(*metav1.ObjectMeta)
}

func copyOf(o kinds.Object) kinds.Object { return o.DeepCopyObject().(kinds.Object) }

// CopyStatus gives to the status of from, which must be of the same kind. Kinds without a status stay as they are.
func CopyStatus(to, from kinds.Object) {
	status := reflect.ValueOf(to).Elem().FieldByName("Status")
	if !status.IsValid() {
		return
	}
	status.Set(reflect.ValueOf(copyOf(from)).Elem().FieldByName("Status"))
}

// hasStatus reports whether objects of the kind carry a status.
func hasStatus(o kinds.Object) bool { return reflect.ValueOf(o).Elem().FieldByName("Status").IsValid() }

// nodeOf is the node on which a pod runs or is to run, "" for what is no pod or not yet placed.
func nodeOf(o kinds.Object) string {
	if pod, ok := o.(*corev1.Pod); ok {
		return pod.Spec.NodeName
	}
	return ""
}
