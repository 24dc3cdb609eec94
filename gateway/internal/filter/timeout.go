package filter

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/ambit-mesh/ambit/gateway/internal/access"
)

var errTimeout = errors.New("the route's timeout passed")

// Timeout bounds the whole exchange, the body of its response included.
func Timeout(next Handler) Handler {
	return HandlerFunc(func(x *Exchange) (*http.Response, error) {
		limit := x.Route.Rule.Timeout
		if limit <= 0 {
			return next.Serve(x)
		}
		ctx, cancel := context.WithTimeoutCause(x.Request.Context(), limit, errTimeout)
		x.Request = x.Request.WithContext(ctx)
		resp, err := next.Serve(x)
		if err != nil {
			late := errors.Is(context.Cause(ctx), errTimeout)
			cancel()
			if late {
				return nil, TimedOut(err)
			}
			return nil, err
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			// What follows an upgrade is no exchange any more; the connection's own context ends it.
			cancel()
			return resp, nil
		}
		resp.Body = &cancelBody{ReadCloser: resp.Body, cancel: cancel, ctx: ctx, record: x.Record}
		return resp, nil
	})
}

// TimedOut is the answer after the time that a route allows.
func TimedOut(cause error) *Failure {
	return &Failure{
		Status: http.StatusGatewayTimeout, Body: "upstream request timeout", Flags: []string{access.UpstreamTimeout},
		Details: "response_timeout", Cause: cause,
	}
}

// cancelBody releases the timer when the body is done with, and says so if it cut the body.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
	ctx    context.Context // of the exchange whose body this is
	record *access.Record
	once   sync.Once
}

func (b *cancelBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && errors.Is(context.Cause(b.ctx), errTimeout) {
		b.once.Do(func() {
			b.record.Flag(access.UpstreamTimeout)
			b.record.Details = "response_timeout"
		})
	}
	return n, err
}

func (b *cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
