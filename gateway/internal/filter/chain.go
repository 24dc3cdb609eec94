// Package filter holds what a rule does to a request on its way to a backend, and to the response on its way back.
package filter

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/access"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
	"github.com/ambit-mesh/ambit/identity"
)

// Exchange is one request on its way. Filters change Request in place; its path is canonical.
type Exchange struct {
	Request     *http.Request
	Peer        identity.ID // what the client proved; zero for a client that proved nothing
	Route       table.Route
	Destination *l7.Destination // chosen among the rule's; nil for a rule that forwards nothing
	Backend     *l7.Backend     // the destination's, of the same table as Route; nil if that has none
	Host        string          // canonical host that the client asked for
	Authority   string          // the same as the client wrote it
	Record      *access.Record
}

// Handler answers an exchange: with a response, or with an error that is a *Failure if the client may know why.
type Handler interface {
	Serve(x *Exchange) (*http.Response, error)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(x *Exchange) (*http.Response, error)

// Serve calls the function.
func (f HandlerFunc) Serve(x *Exchange) (*http.Response, error) { return f(x) }

// Filter wraps a handler.
type Filter func(next Handler) Handler

// Chain puts the filters before a handler. A request meets them in this order, and its response in the reverse.
func Chain(upstream Handler, mirror Filter) Handler {
	h := upstream
	for _, f := range slices.Backward([]Filter{CORS, Fault, Redirect, Direct, Headers, Timeout, Rewrite, mirror}) {
		h = f(h)
	}
	return h
}

// Failure is an answer that the proxy itself gives.
type Failure struct {
	Status    int
	Body      string
	Header    http.Header // of the answer; nil for none
	Flags     []string
	Details   string // response_code_details
	Transport string // upstream_transport_failure_reason
	Cause     error
}

func (f *Failure) Error() string {
	if f.Cause != nil {
		return fmt.Sprintf("%s: %v", f.Details, f.Cause)
	}
	return f.Details
}

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Cause }

// annotate adds to the headers of an answer that the proxy itself gives, if the error is one.
func annotate(err error, add func(http.Header)) {
	var f *Failure
	if !errors.As(err, &f) {
		return
	}
	if f.Header == nil {
		f.Header = http.Header{}
	}
	add(f.Header)
}
