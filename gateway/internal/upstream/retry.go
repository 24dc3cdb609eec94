package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/gateway/internal/access"
	"github.com/ambit-mesh/ambit/gateway/internal/filter"
)

// errPerTry ends a try that took longer than its rule allows.
var errPerTry = errors.New("the time for one try passed")

// retriable decides whether what came of a try may be tried again. Without words of the author: what cannot have been
// worked on, and what gRPC says is safe (Istio's default).
func retriable(on []string, resp *http.Response, err error) bool {
	if len(on) == 0 {
		on = []string{"connect-failure", "refused-stream", "unavailable", "cancelled"}
	}
	var connect *connectError
	switch {
	case errors.Is(err, errOverflow):
		return false
	case errors.As(err, &connect):
		return has(on, "connect-failure", "reset", "reset-before-request", "5xx", "gateway-error")
	case refused(err):
		return has(on, "refused-stream", "reset", "5xx", "gateway-error")
	case errors.Is(err, errPerTry):
		return has(on, "5xx", "gateway-error")
	case err != nil:
		return has(on, "reset", "5xx", "gateway-error")
	}
	s := resp.StatusCode
	if s >= 502 && s <= 504 && has(on, "gateway-error") || s >= 500 && has(on, "5xx") || s == 409 && has(on, "retriable-4xx") ||
		slices.Contains(on, strconv.Itoa(s)) {
		return true
	}
	word := map[string]string{"1": "cancelled", "4": "deadline-exceeded", "8": "resource-exhausted", "13": "internal", "14": "unavailable"}
	w, ok := word[resp.Header.Get("Grpc-Status")]
	return ok && has(on, w)
}

// refused reports whether the backend said that it did not begin with the request.
func refused(err error) bool {
	var s http2.StreamError
	if errors.As(err, &s) {
		return s.Code == http2.ErrCodeRefusedStream
	}
	return err != nil && strings.Contains(err.Error(), "REFUSED_STREAM") // net/http's own copy of the type has no name
}

func has(on []string, any ...string) bool {
	return slices.ContainsFunc(any, func(s string) bool { return slices.Contains(on, s) })
}

// pause waits before another try: 25 ms doubled each time up to ten times that, with full jitter, as Envoy does.
func pause(ctx context.Context, base time.Duration, attempt int) error {
	if base <= 0 {
		base = 25 * time.Millisecond
	}
	return filter.Wait(ctx, rand.N(min(base<<min(attempt, 8), 10*base)))
}

// failure is what the client is told, and the log.
func failure(ctx context.Context, err error, retries int) *filter.Failure {
	f := &filter.Failure{Status: http.StatusServiceUnavailable, Cause: err}
	word := "reset reason: "
	if retries > 0 {
		word = "retried and the latest reset reason: "
		f.Flags = append(f.Flags, access.RetryLimit)
	}
	say := func(flag, reason, transport string) {
		f.Flags = append([]string{flag}, f.Flags...)
		f.Body = "upstream connect error or disconnect/reset before headers. " + word + reason
		f.Transport = transport
		f.Details = "upstream_reset_before_response_started{" + strings.ReplaceAll(reason, " ", "_") + "}"
		if transport != "" && flag == access.UpstreamConnect {
			f.Details = fmt.Sprintf("upstream_reset_before_response_started{%s|%s}", strings.ReplaceAll(reason, " ", "_"), strings.ReplaceAll(transport, " ", "_"))
		}
	}
	var connect *connectError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return &filter.Failure{Flags: []string{access.DownstreamTerminated}, Details: "downstream_remote_disconnect", Cause: err}
	case errors.Is(err, errOverflow):
		say(access.UpstreamOverflow, "overflow", "")
		f.Header = http.Header{"X-Envoy-Overloaded": {"true"}}
	case errors.As(err, &connect):
		reason, why := connecting(err)
		say(access.UpstreamConnect, reason, connect.cause.Error())
		if why != "" {
			f.Body += ", transport failure reason: " + why
		}
	case errors.Is(err, errPerTry):
		late := filter.TimedOut(err)
		late.Details, late.Flags = "upstream_per_try_timeout", append(late.Flags, f.Flags...)
		return late
	case errors.Is(err, context.DeadlineExceeded):
		return filter.TimedOut(err)
	case refused(err):
		say(access.UpstreamReset, "remote refused stream reset", err.Error())
	default:
		say(access.UpstreamTermination, "connection termination", err.Error())
	}
	return f
}

// connecting says why a connection did not come about, in Envoy's words.
func connecting(err error) (reason, why string) {
	var record tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return "connection timeout", ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return "remote connection failure", "delayed connect error: Connection refused"
	case errors.As(err, &record):
		return "remote connection failure", "TLS_error: the backend does not speak TLS"
	case errors.As(err, &cert), errors.As(err, &unknown):
		return "remote connection failure", "TLS_error: CERTIFICATE_VERIFY_FAILED"
	}
	return "remote connection failure", ""
}
