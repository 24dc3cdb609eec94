package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/access"
	"github.com/ambit-mesh/ambit/gateway/internal/filter"
)

// Serve sends the exchange to an endpoint of its destination. A failure to connect is tried again elsewhere, because
// nothing was sent; other failures only if the rule asks for it and the request has no body that is already spent.
func (u *Upstreams) Serve(x *filter.Exchange) (*http.Response, error) {
	c := u.cluster(x.Destination.GetBackend(), x.Backend)
	if c == nil {
		return nil, &filter.Failure{Status: http.StatusServiceUnavailable, Flags: []string{access.NoCluster}, Details: "cluster_not_found"}
	}
	x.Record.Backend = c.Backend
	if c.GetUnknown() {
		return nil, &filter.Failure{Status: http.StatusServiceUnavailable, Flags: []string{access.NoCluster}, Details: "cluster_not_found"}
	}
	rule := x.Route.Rule
	body := x.Request.Body
	if body != nil {
		defer func() { x.Request.Body = body }()
	}
	var tried []*l7.Endpoint
	for attempt := 0; ; attempt++ {
		e, ok := c.pick(tried)
		if !ok {
			return nil, &filter.Failure{
				Status: http.StatusServiceUnavailable, Body: "no healthy upstream",
				Flags: []string{access.NoHealthyUpstream}, Details: "no_healthy_upstream",
			}
		}
		tried = append(tried, e.Endpoint)
		resp, err := u.try(x, e, attempt)
		last := attempt >= rule.Attempts || x.Request.Context().Err() != nil
		if last || !again(x.Request, rule.RetryOn, resp, err) {
			if err != nil {
				return nil, failure(x.Request.Context(), err, attempt)
			}
			return resp, nil
		}
		if resp != nil {
			resp.Body.Close()
		}
		if err := pause(x.Request.Context(), attempt); err != nil {
			return nil, failure(x.Request.Context(), err, attempt)
		}
		// The cluster may have changed meanwhile: an endpoint that went away is not tried again.
		if now := u.cluster(x.Destination.GetBackend(), nil); now != nil {
			c = now
		}
	}
}

// try sends the request once.
func (u *Upstreams) try(x *filter.Exchange, e endpoint, attempt int) (*http.Response, error) {
	x.Record.Endpoint = e.Endpoint
	x.Record.UpstreamHost = e.lane.target.Addr
	ctx := httptrace.WithClientTrace(x.Request.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { x.Record.UpstreamLocal = i.Conn.LocalAddr().String() },
	})
	cancel := func() {}
	if t := x.Route.Rule.PerTry; t > 0 {
		ctx, cancel = context.WithTimeout(ctx, t)
	}
	out := x.Request.WithContext(ctx)
	target := *x.Request.URL
	target.Scheme, target.Host = "http", e.lane.target.Addr
	out.URL = &target
	out.RequestURI = ""
	if out.Body != nil && out.Body != http.NoBody {
		out.Body = &attemptBody{x.Request.Body}
	}
	if attempt > 0 {
		out.Header = out.Header.Clone() // the attempt before may still be reading its own
	}
	out.Header.Set("X-Envoy-Attempt-Count", strconv.Itoa(attempt+1))
	leave := e.lane.enter()
	start := time.Now()
	resp, err := e.lane.transport.RoundTrip(out)
	if err != nil {
		leave()
		cancel()
		return nil, err
	}
	x.Record.UpstreamTime = max(time.Since(start), time.Nanosecond)
	done := func() { leave(); cancel() }
	if resp.StatusCode == http.StatusSwitchingProtocols {
		rwc, ok := resp.Body.(io.ReadWriteCloser)
		if !ok {
			resp.Body.Close()
			done()
			return nil, errors.New("the backend switched protocols without a connection to write to")
		}
		resp.Body = &upgraded{rwc, done}
		return resp, nil
	}
	resp.Body = &trackedBody{resp.Body, done}
	return resp, nil
}

// attemptBody lets a failed attempt close its body without closing the client's.
type attemptBody struct{ io.Reader }

func (*attemptBody) Close() error { return nil }

type trackedBody struct {
	io.ReadCloser
	done func()
}

func (b *trackedBody) Close() error {
	err := b.ReadCloser.Close()
	b.done()
	return err
}

type upgraded struct {
	io.ReadWriteCloser
	done func()
}

func (b *upgraded) Close() error {
	err := b.ReadWriteCloser.Close()
	b.done()
	return err
}

// CloseWrite ends our direction of an upgraded connection.
func (b *upgraded) CloseWrite() error {
	if c, ok := b.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// again decides whether to try once more.
func again(req *http.Request, on []string, resp *http.Response, err error) bool {
	var connect *connectError
	if errors.As(err, &connect) {
		return len(on) == 0 || has(on, "connect-failure", "reset", "5xx", "gateway-error")
	}
	if req.Body != nil && req.Body != http.NoBody {
		return false // what was sent of it is gone
	}
	if err != nil {
		return has(on, "reset", "5xx", "gateway-error")
	}
	s := resp.StatusCode
	switch {
	case s >= 502 && s <= 504 && has(on, "gateway-error"), s >= 500 && has(on, "5xx"), s == 409 && has(on, "retriable-4xx"):
		return true
	case slices.Contains(on, strconv.Itoa(s)):
		return true
	}
	g := resp.Header.Get("Grpc-Status")
	return g == "14" && (len(on) == 0 || has(on, "unavailable")) || g == "1" && has(on, "cancelled") ||
		g == "8" && has(on, "resource-exhausted") || g == "4" && has(on, "deadline-exceeded")
}

func has(on []string, any ...string) bool {
	return slices.ContainsFunc(any, func(s string) bool { return slices.Contains(on, s) })
}

// pause waits before another try: 25 ms doubled each time, with full jitter.
func pause(ctx context.Context, attempt int) error {
	limit := 25 * time.Millisecond << min(attempt, 4)
	t := time.NewTimer(rand.N(limit))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// failure is what the client is told, and the log.
func failure(ctx context.Context, err error, retries int) *filter.Failure {
	f := &filter.Failure{Status: http.StatusServiceUnavailable, Cause: err}
	const intro = "upstream connect error or disconnect/reset before headers. "
	word := "reset reason: "
	if retries > 0 {
		word = "retried and the latest reset reason: "
		f.Flags = append(f.Flags, access.RetryLimit)
	}
	var connect *connectError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return &filter.Failure{Flags: []string{access.DownstreamTerminated}, Details: "downstream_remote_disconnect", Cause: err}
	case errors.As(err, &connect):
		reason, why := "remote connection failure", ""
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
			reason = "connection timeout"
		case errors.Is(err, syscall.ECONNREFUSED):
			why = "delayed connect error: Connection refused"
		}
		f.Flags = append([]string{access.UpstreamConnect}, f.Flags...)
		f.Transport = connect.cause.Error()
		f.Body = intro + word + reason
		if why != "" {
			f.Body += ", transport failure reason: " + why
		}
		f.Details = detail(reason, f.Transport)
	case errors.Is(err, context.DeadlineExceeded):
		return filter.TimedOut(err)
	default:
		f.Flags = append([]string{access.UpstreamTermination}, f.Flags...)
		f.Body = intro + word + "connection termination"
		f.Details = "upstream_reset_before_response_started{connection_termination}"
		f.Transport = err.Error()
	}
	return f
}

func detail(reason, transport string) string {
	return fmt.Sprintf("upstream_reset_before_response_started{%s|%s}", strings.ReplaceAll(reason, " ", "_"), strings.ReplaceAll(transport, " ", "_"))
}
