package api

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// protobufType is how Kubernetes' clients may send its own kinds.
const protobufType = "application/vnd.kubernetes.protobuf"

// protobufMagic begins such a body, before a runtime.Unknown that wraps the object.
const protobufMagic = "k8s\x00"

// plain gives a body as JSON or YAML, whichever form it was sent in.
func plain(r *http.Request, data []byte) ([]byte, error) {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), protobufType) {
		return data, nil
	}
	out, err := fromProtobuf(data)
	if err != nil {
		return nil, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "read the body as protobuf: " + err.Error()}
	}
	return out, nil
}

func fromProtobuf(data []byte) (out []byte, err error) {
	// The generated decoders are foreign: one that panics on foreign bytes must not take the server with it.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it cannot be decoded: %v", r)
		}
	}()
	rest, ok := bytes.CutPrefix(data, []byte(protobufMagic))
	if !ok {
		return nil, fmt.Errorf("it does not begin with %q", protobufMagic)
	}
	var wrapped runtime.Unknown
	if err := wrapped.Unmarshal(rest); err != nil {
		return nil, err
	}
	k, ok := kinds.FindGVK(wrapped.APIVersion, wrapped.Kind)
	if !ok {
		return nil, fmt.Errorf("ambit does not know kind %s (apiVersion %s)", wrapped.Kind, wrapped.APIVersion)
	}
	o := k.New()
	decoder, ok := o.(interface{ Unmarshal([]byte) error })
	if !ok {
		return nil, fmt.Errorf("kind %s has no protobuf form here; send JSON", k.Kind)
	}
	if err := decoder.Unmarshal(wrapped.Raw); err != nil {
		return nil, err
	}
	return kinds.EncodeJSON(o)
}

// wrapped reads what is no object, such as options, from a body in that form.
func wrapped(data []byte, to interface{ Unmarshal([]byte) error }) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it cannot be decoded: %v", r)
		}
	}()
	rest, ok := bytes.CutPrefix(data, []byte(protobufMagic))
	if !ok {
		return fmt.Errorf("it does not begin with %q", protobufMagic)
	}
	var u runtime.Unknown
	if err := u.Unmarshal(rest); err != nil {
		return err
	}
	return to.Unmarshal(u.Raw)
}
