package routing

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/api/l7"
)

// ranked is a rule with what its place among others depends on: the larger, the earlier.
type ranked struct {
	rule *l7.Rule
	rank [5]int // exact path, length of the path, method, headers, query parameters
}

// byRank orders the rules of a host, those of older routes first where they are equal.
func byRank(a, b ranked) int { return slices.Compare(b.rank[:], a.rank[:]) }

// httpRules are the rules of a route at a listener, one for each match.
func (x *planner) httpRules(route kubeRoute, k *kubeListener) []ranked {
	var out []ranked
	for i := range route.http.Spec.Rules {
		h := &route.http.Spec.Rules[i]
		base := x.httpRule(route, k, h)
		base.Name = string(deref(h.Name, ""))
		base.Source = route.kind + "/" + route.object.GetNamespace() + "/" + route.object.GetName()
		matches := h.Matches
		if len(matches) == 0 {
			matches = []gatewayv1.HTTPRouteMatch{{}}
		}
		for _, m := range matches {
			r := proto.CloneOf(base)
			match, rank := httpMatch(m)
			r.Matches = []*l7.Match{match}
			if checkRule(r) != nil {
				continue // its status says so
			}
			out = append(out, ranked{r, rank})
		}
	}
	return out
}

func httpMatch(m gatewayv1.HTTPRouteMatch) (*l7.Match, [5]int) {
	out := &l7.Match{}
	var rank [5]int
	kind, value := gatewayv1.PathMatchPathPrefix, "/"
	if m.Path != nil {
		kind, value = deref(m.Path.Type, kind), deref(m.Path.Value, value)
	}
	rank[1] = len(value)
	switch kind {
	case gatewayv1.PathMatchExact:
		rank[0] = 1
		out.Path = &l7.StringMatch{Kind: &l7.StringMatch_Exact{Exact: value}}
	case gatewayv1.PathMatchRegularExpression:
		out.Path = &l7.StringMatch{Kind: &l7.StringMatch_Regex{Regex: value}}
	default:
		out.Path = &l7.StringMatch{Kind: &l7.StringMatch_PathPrefix{PathPrefix: value}}
	}
	if m.Method != nil {
		rank[2] = 1
		out.Method = &l7.StringMatch{Kind: &l7.StringMatch_Exact{Exact: string(*m.Method)}}
	}
	key := func(name, value string, regex bool) *l7.KeyMatch {
		if regex {
			return &l7.KeyMatch{Name: name, Value: &l7.StringMatch{Kind: &l7.StringMatch_Regex{Regex: value}}}
		}
		return &l7.KeyMatch{Name: name, Value: &l7.StringMatch{Kind: &l7.StringMatch_Exact{Exact: value}}}
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, key(string(h.Name), h.Value, deref(h.Type, gatewayv1.HeaderMatchExact) == gatewayv1.HeaderMatchRegularExpression))
	}
	for _, q := range m.QueryParams {
		out.Query = append(out.Query, key(string(q.Name), q.Value, deref(q.Type, gatewayv1.QueryParamMatchExact) == gatewayv1.QueryParamMatchRegularExpression))
	}
	rank[3], rank[4] = len(out.Headers), len(out.Query)
	return out, rank
}

// httpRule is what a rule does.
func (x *planner) httpRule(route kubeRoute, k *kubeListener, h *gatewayv1.HTTPRouteRule) *l7.Rule {
	r := &l7.Rule{}
	if h.Timeouts != nil {
		r.Timeout = duration(h.Timeouts.Request)
		if t := duration(h.Timeouts.BackendRequest); t != nil {
			r.Retries = &l7.Retries{PerTryTimeout: t, Attempts: 2}
		}
	}
	if t := h.Retry; t != nil {
		r.Retries = &l7.Retries{PerTryTimeout: r.GetRetries().GetPerTryTimeout(), Attempts: uint32(max(deref(t.Attempts, 1), 0)), Backoff: duration(t.Backoff), On: []string{"connect-failure"}}
		r.Retries.Disabled = r.Retries.GetAttempts() == 0
		for _, c := range t.Codes {
			r.Retries.On = append(r.Retries.On, fmt.Sprint(int(c)))
		}
	}
	for _, f := range h.Filters {
		switch {
		case f.RequestHeaderModifier != nil:
			r.RequestHeaders = modify(f.RequestHeaderModifier)
		case f.ResponseHeaderModifier != nil:
			r.ResponseHeaders = modify(f.ResponseHeaderModifier)
		case f.RequestRedirect != nil:
			r.Action = &l7.Rule_Redirect{Redirect: kubeRedirect(f.RequestRedirect, uint32(k.spec.Port))}
		case f.URLRewrite != nil:
			r.Rewrite = kubeRewrite(f.URLRewrite)
		case f.CORS != nil:
			r.Cors = kubeCORS(f.CORS)
		case f.RequestMirror != nil:
			if name := x.kubeBackend(route, gatewayv1.BackendRef{BackendObjectReference: f.RequestMirror.BackendRef}, k); name != "" {
				r.Mirrors = append(r.Mirrors, &l7.Mirror{Backend: name, Share: mirrored(f.RequestMirror)})
			}
		}
	}
	if route.unserved() != "" {
		// Half of what was asked for might be the half that lets somebody in.
		r.Action = &l7.Rule_DirectResponse{DirectResponse: &l7.DirectResponse{Status: http.StatusInternalServerError}}
	}
	if r.Action != nil {
		return r
	}
	f := &l7.Forward{}
	for _, ref := range h.BackendRefs {
		d := &l7.Destination{Backend: x.kubeBackend(route, ref.BackendRef, k), Weight: uint32(max(deref(ref.Weight, 1), 0))}
		for _, m := range ref.Filters {
			if m.RequestHeaderModifier != nil {
				d.RequestHeaders = modify(m.RequestHeaderModifier)
			}
			if m.ResponseHeaderModifier != nil {
				d.ResponseHeaders = modify(m.ResponseHeaderModifier)
			}
		}
		f.Destinations = append(f.Destinations, d)
	}
	if !slices.ContainsFunc(f.Destinations, func(d *l7.Destination) bool { return d.GetWeight() > 0 }) {
		f.Destinations = []*l7.Destination{{Weight: 1}} // to no backend: 500
	}
	r.Action = &l7.Rule_Forward{Forward: f}
	return r
}

func duration(d *gatewayv1.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	t, err := time.ParseDuration(string(*d))
	if err != nil {
		return nil
	}
	return durationpb.New(t)
}

func modify(m *gatewayv1.HTTPHeaderFilter) *l7.HeaderOperations {
	fields := func(in []gatewayv1.HTTPHeader) map[string]string {
		out := map[string]string{}
		for _, h := range in {
			if _, twice := out[string(h.Name)]; !twice {
				out[string(h.Name)] = h.Value
			}
		}
		return out
	}
	return &l7.HeaderOperations{Set: fields(m.Set), Add: fields(m.Add), Remove: m.Remove}
}

func kubeRedirect(d *gatewayv1.HTTPRequestRedirectFilter, port uint32) *l7.Redirect {
	out := &l7.Redirect{
		Code: uint32(deref(d.StatusCode, http.StatusFound)), Scheme: strings.ToLower(deref(d.Scheme, "")), Host: string(deref(d.Hostname, "")),
	}
	switch {
	case d.Port != nil:
		out.Port = uint32(*d.Port)
	case out.Scheme != "":
		out.ProtocolDefaultPort = true
	default:
		out.Port = port
	}
	if d.Path != nil {
		if p := d.Path.ReplaceFullPath; p != nil {
			out.PathKind = &l7.Redirect_Path{Path: cmp.Or(*p, "/")}
		}
		if p := d.Path.ReplacePrefixMatch; p != nil {
			out.PathKind = &l7.Redirect_Prefix{Prefix: cmp.Or(*p, "/")}
		}
	}
	return out
}

func kubeRewrite(w *gatewayv1.HTTPURLRewriteFilter) *l7.Rewrite {
	out := &l7.Rewrite{Host: string(deref(w.Hostname, ""))}
	if w.Path != nil {
		if p := w.Path.ReplaceFullPath; p != nil {
			out.PathKind = &l7.Rewrite_Path{Path: cmp.Or(*p, "/")}
		}
		if p := w.Path.ReplacePrefixMatch; p != nil {
			out.PathKind = &l7.Rewrite_Prefix{Prefix: cmp.Or(*p, "/")}
		}
	}
	return out
}

func mirrored(m *gatewayv1.HTTPRequestMirrorFilter) uint32 {
	switch {
	case m.Percent != nil:
		return millionths(float64(*m.Percent))
	case m.Fraction != nil:
		return millionths(100 * float64(m.Fraction.Numerator) / float64(max(deref(m.Fraction.Denominator, 100), 1)))
	}
	return millionths(100)
}

func kubeCORS(c *gatewayv1.HTTPCORSFilter) *l7.Cors {
	out := &l7.Cors{Credentials: deref(c.AllowCredentials, false), MaxAge: durationpb.New(time.Duration(c.MaxAge) * time.Second)}
	for _, o := range c.AllowOrigins {
		m := &l7.StringMatch{Kind: &l7.StringMatch_Exact{Exact: string(o)}}
		if before, after, wild := strings.Cut(string(o), "*"); wild && string(o) != "*" {
			m.Kind = &l7.StringMatch_Regex{Regex: quote(before) + ".*" + quote(after)}
		}
		out.Origins = append(out.Origins, m)
	}
	for _, m := range c.AllowMethods {
		out.Methods = append(out.Methods, string(m))
	}
	for _, h := range c.AllowHeaders {
		out.Headers = append(out.Headers, string(h))
	}
	for _, h := range c.ExposeHeaders {
		out.Expose = append(out.Expose, string(h))
	}
	return out
}
