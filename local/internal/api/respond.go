package api

import (
	"encoding/json"
	"errors"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// problem is an error with what HTTP and Kubernetes call it.
type problem struct {
	code   int
	reason metav1.StatusReason
	what   string
}

func (p problem) Error() string { return p.what }

// problemOf gives any error the API's form.
func problemOf(err error) problem {
	var p problem
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &large):
		return problem{http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, err.Error()}
	case errors.Is(err, store.ErrNotFound):
		return problem{http.StatusNotFound, metav1.StatusReasonNotFound, err.Error()}
	case errors.Is(err, store.ErrExists):
		return problem{http.StatusConflict, metav1.StatusReasonAlreadyExists, err.Error()}
	case errors.Is(err, store.ErrConflict):
		return problem{http.StatusConflict, metav1.StatusReasonConflict, err.Error()}
	case errors.Is(err, store.ErrInvalid):
		return problem{http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, err.Error()}
	case errors.Is(err, store.ErrGone):
		return problem{http.StatusGone, metav1.StatusReasonExpired, err.Error()}
	}
	return problem{http.StatusInternalServerError, metav1.StatusReasonInternalError, err.Error()}
}

func (p problem) status() metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Message: p.what, Reason: p.reason, Code: int32(p.code),
	}
}

func fail(w http.ResponseWriter, err error) {
	p := problemOf(err)
	sendJSON(w, p.code, p.status())
}

// send answers with one object.
func send(w http.ResponseWriter, code int, o kinds.Object) error {
	data, err := kinds.EncodeJSON(o)
	if err != nil {
		return err
	}
	sendBytes(w, code, data)
	return nil
}

func sendJSON(w http.ResponseWriter, code int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	sendBytes(w, code, data)
}

func sendBytes(w http.ResponseWriter, code int, data []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(data, '\n')) // a client that went away needs no answer
}
