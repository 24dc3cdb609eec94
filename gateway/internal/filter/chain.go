// Package filter holds what a rule does to a request on its way to a backend, and to the response on its way back.
package filter

import (
	"fmt"
	"net/http"

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

// Chain puts the filters before a handler, in the order in which a request meets them.
func Chain(upstream Handler) Handler {
	h := upstream
	for _, f := range []Filter{Rewrite, Headers, Timeout, Direct, Redirect} {
		h = f(h)
	}
	return h
}

// Failure is an answer that the proxy itself gives.
type Failure struct {
	Status    int
	Body      string
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
