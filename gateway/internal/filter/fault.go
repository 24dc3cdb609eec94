package filter

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/access"
)

// Fault delays a share of the requests and ends a share of them, as the rule asks for.
func Fault(next Handler) Handler {
	return HandlerFunc(func(x *Exchange) (*http.Response, error) {
		f := x.Route.Rule.Fault
		if f == nil {
			return next.Serve(x)
		}
		if d := f.GetDelay().AsDuration(); d > 0 && drawn(f.GetDelayShare()) {
			x.Record.Flag(access.DelayInjected)
			if err := Wait(x.Request.Context(), d); err != nil {
				return nil, &Failure{Flags: []string{access.DownstreamTerminated}, Details: "downstream_remote_disconnect", Cause: err}
			}
		}
		if aborts(f) && drawn(f.GetAbortShare()) {
			return nil, aborted(f, IsGRPC(x.Request.Header))
		}
		return next.Serve(x)
	})
}

func aborts(f *l7.Fault) bool { return f.GetAbortStatus() != 0 || f.GrpcStatus != nil }

func aborted(f *l7.Fault, grpc bool) *Failure {
	out := &Failure{
		Status: int(f.GetAbortStatus()), Body: "fault filter abort", Flags: []string{access.FaultInjected}, Details: "fault_filter_abort",
	}
	if f.GrpcStatus != nil {
		out.Status = statusOfGRPC(f.GetGrpcStatus())
		if grpc {
			out.Header = http.Header{"Grpc-Status": {strconv.Itoa(int(f.GetGrpcStatus()))}}
		}
	}
	return out
}

// drawn is true for a share of the calls, in millionths.
func drawn(share uint32) bool { return share > 0 && rand.Uint32N(1_000_000) < share }

// Wait takes so long, or ends with ctx and why that ended.
func Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
