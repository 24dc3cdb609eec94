package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/gateway/internal/access"
	"github.com/ambit-mesh/ambit/gateway/internal/filter"
)

// Serve sends the exchange to an endpoint of its destination, and tries again elsewhere what its rule allows.
func (u *Upstreams) Serve(x *filter.Exchange) (*http.Response, error) {
	c := u.cluster(x.Destination.GetBackend(), x.Backend)
	if c == nil {
		return nil, noCluster()
	}
	x.Record.Backend = c.Backend
	if c.GetUnknown() {
		return nil, noCluster()
	}
	ctx := x.Request.Context()
	leave, err := c.state.enter(ctx, c.GetLimits(), c.GetProtocol() != 0)
	if err != nil {
		return nil, failure(ctx, err, 0)
	}
	how, cookie := c.choose(x)
	resp, err := u.tries(x, c, how)
	if err != nil {
		leave()
		if cookie != nil {
			var f *filter.Failure
			if errors.As(err, &f) {
				f.Header = with(f.Header, "Set-Cookie", cookie.String())
			}
		}
		return nil, err
	}
	if cookie != nil {
		resp.Header = with(resp.Header, "Set-Cookie", cookie.String())
	}
	resp.Body = leaving(resp.Body, leave)
	return resp, nil
}

func with(h http.Header, name, value string) http.Header {
	if h == nil {
		h = http.Header{}
	}
	h.Add(name, value)
	return h
}

func noCluster() error {
	return &filter.Failure{Status: http.StatusServiceUnavailable, Flags: []string{access.NoCluster}, Details: "cluster_not_found"}
}

// tries sends the request until there is an answer to give, or nothing more to try.
func (u *Upstreams) tries(x *filter.Exchange, c *cluster, how *choice) (*http.Response, error) {
	rule, ctx := x.Route.Rule, x.Request.Context()
	body := bodyOf(x.Request)
	for attempt := 0; ; attempt++ {
		e, ok := c.pick(how, time.Now())
		if !ok {
			return nil, &filter.Failure{
				Status: http.StatusServiceUnavailable, Body: "no healthy upstream",
				Flags: []string{access.NoHealthyUpstream}, Details: "no_healthy_upstream",
			}
		}
		resp, err := u.try(x, c, e, attempt, body)
		give := func() (*http.Response, error) {
			if err != nil {
				return nil, failure(ctx, err, attempt)
			}
			if attempt > 0 && attempt >= rule.Attempts && retriable(rule.RetryOn, resp, nil) {
				x.Record.Flag(access.RetryLimit)
			}
			return resp, nil
		}
		if attempt >= rule.Attempts || ctx.Err() != nil || !retriable(rule.RetryOn, resp, err) || !body.again() {
			return give()
		}
		done, ok := c.state.retry(c.GetLimits())
		if !ok {
			x.Record.Flag(access.UpstreamOverflow)
			return give()
		}
		if resp != nil {
			resp.Body.Close()
		}
		err = pause(ctx, rule.Backoff, attempt)
		done()
		if err != nil {
			return nil, failure(ctx, err, attempt)
		}
		// The cluster may have changed meanwhile: an endpoint that went away is not tried again.
		if now := u.cluster(x.Destination.GetBackend(), nil); now != nil {
			c = now
		}
	}
}

// try sends the request once.
func (u *Upstreams) try(x *filter.Exchange, c *cluster, e endpoint, attempt int, body *replay) (*http.Response, error) {
	x.Record.Endpoint = e.Endpoint
	x.Record.UpstreamHost = e.lane.target.Addr
	ctx := httptrace.WithClientTrace(x.Request.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { x.Record.UpstreamLocal = i.Conn.LocalAddr().String() },
	})
	ctx, cancel := context.WithCancelCause(ctx)
	var late *time.Timer
	if t := x.Route.Rule.PerTry; t > 0 {
		late = time.AfterFunc(t, func() { cancel(errPerTry) })
	}
	out := x.Request.WithContext(ctx)
	target := *x.Request.URL
	target.Scheme, target.Host = "http", e.lane.target.Addr
	out.URL = &target
	out.RequestURI = ""
	if body != nil {
		out.Body = body.open()
	}
	out.Header = out.Header.Clone() // a try before may still be reading its own
	out.Header.Set("X-Envoy-Attempt-Count", strconv.Itoa(attempt+1))
	leave := e.lane.enter()
	start := time.Now()
	resp, err := e.lane.transport.RoundTrip(out)
	if late != nil {
		late.Stop() // the time is for the response's head
	}
	if err != nil {
		if errors.Is(context.Cause(ctx), errPerTry) {
			err = errPerTry
		}
		if x.Request.Context().Err() == nil {
			c.observe(e, unreachedOr(err), time.Now())
		}
		leave()
		cancel(nil)
		return nil, err
	}
	c.observe(e, outcomeOf(resp.StatusCode), time.Now())
	x.Record.UpstreamTime = max(time.Since(start), time.Nanosecond)
	done := func() { leave(); cancel(nil) }
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if _, ok := resp.Body.(io.ReadWriteCloser); !ok {
			resp.Body.Close()
			done()
			return nil, errors.New("the backend switched protocols without a connection to write to")
		}
	}
	resp.Body = leaving(resp.Body, done)
	return resp, nil
}

func unreachedOr(err error) outcome {
	if errors.Is(err, errPerTry) {
		return gatewayError
	}
	return unreached
}

// leaving calls done when a response's body is closed. One that can be written to still can.
func leaving(body io.ReadCloser, done func()) io.ReadCloser {
	if rwc, ok := body.(io.ReadWriteCloser); ok {
		return &upgraded{rwc, done}
	}
	return &trackedBody{body, done}
}

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
