package routing

import (
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/api/l7"
)

// millionths turns a percentage into the unit of shares.
func millionths(percent float64) uint32 { return uint32(min(max(percent, 0), 100)*10_000 + 0.5) }

// share is a percentage in its present form or its old one; neither means otherwise.
func share(p *networking.Percent, old, otherwise float64) uint32 {
	switch {
	case p != nil:
		return millionths(p.GetValue())
	case old > 0:
		return millionths(old)
	}
	return millionths(otherwise)
}

func fault(f *networking.HTTPFaultInjection, no func(string, ...any)) *l7.Fault {
	if f == nil {
		return nil
	}
	out := &l7.Fault{}
	if d := f.GetDelay(); d != nil {
		if d.GetFixedDelay() == nil {
			no("fault.delay: only fixedDelay is in force")
		}
		out.Delay, out.DelayShare = d.GetFixedDelay(), share(d.GetPercentage(), float64(d.GetPercent()), 0)
	}
	a := f.GetAbort()
	switch k := a.GetErrorType().(type) {
	case *networking.HTTPFaultInjection_Abort_HttpStatus:
		out.AbortStatus = uint32(max(k.HttpStatus, 0))
	case *networking.HTTPFaultInjection_Abort_GrpcStatus:
		code, ok := grpcCode(k.GrpcStatus)
		if !ok {
			no("fault.abort.grpcStatus: %q is no status of gRPC, write for example UNAVAILABLE; not in force", k.GrpcStatus)
			break
		}
		out.GrpcStatus = &code
	default:
		if a != nil {
			no("fault.abort: only httpStatus and grpcStatus are in force")
		}
	}
	out.AbortShare = share(a.GetPercentage(), 0, 0)
	return out
}

// grpcCode knows the statuses of gRPC by name.
func grpcCode(name string) (uint32, bool) {
	for i, n := range [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
		"DATA_LOSS", "UNAUTHENTICATED",
	} {
		if strings.EqualFold(n, name) {
			return uint32(i), true
		}
	}
	return 0, false
}

func cors(c *networking.CorsPolicy) *l7.Cors {
	if c == nil {
		return nil
	}
	out := &l7.Cors{
		Methods: c.GetAllowMethods(), Headers: c.GetAllowHeaders(), Expose: c.GetExposeHeaders(), MaxAge: c.GetMaxAge(),
		Credentials:      c.GetAllowCredentials().GetValue(),
		ForwardUnmatched: c.GetUnmatchedPreflights() != networking.CorsPolicy_IGNORE,
	}
	for _, o := range c.GetAllowOrigins() {
		if m := stringMatch(o); m != nil {
			out.Origins = append(out.Origins, m)
		}
	}
	for _, o := range c.GetAllowOrigin() {
		out.Origins = append(out.Origins, &l7.StringMatch{Kind: &l7.StringMatch_Exact{Exact: o}})
	}
	return out
}

// mirrors are the copies that a rule asks for, in the present form or the old one.
func (x *planner) mirrors(vs *networkingv1.VirtualService, sv *server, h *networking.HTTPRoute) []*l7.Mirror {
	var out []*l7.Mirror
	if d := h.GetMirror(); d != nil {
		out = append(out, &l7.Mirror{
			Backend: x.destination(vs, sv, d), Share: share(h.GetMirrorPercentage(), float64(h.GetMirrorPercent().GetValue()), 100),
		})
	}
	for _, m := range h.GetMirrors() {
		out = append(out, &l7.Mirror{Backend: x.destination(vs, sv, m.GetDestination()), Share: share(m.GetPercentage(), 0, 100)})
	}
	return out
}
