package routing

import (
	"net/http"
	"regexp"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func quote(s string) string { return regexp.QuoteMeta(s) }

// asHTTP is what a GRPCRoute means in HTTP: a method is a path, and every call a POST.
func asHTTP(o *gatewayv1.GRPCRoute) *gatewayv1.HTTPRoute {
	out := &gatewayv1.HTTPRoute{ObjectMeta: o.ObjectMeta}
	for _, r := range o.Spec.Rules {
		h := gatewayv1.HTTPRouteRule{Name: r.Name}
		for _, m := range r.Matches {
			h.Matches = append(h.Matches, callMatch(m))
		}
		for _, f := range r.Filters {
			h.Filters = append(h.Filters, callFilter(f))
		}
		for _, b := range r.BackendRefs {
			x := gatewayv1.HTTPBackendRef{BackendRef: b.BackendRef}
			for _, f := range b.Filters {
				x.Filters = append(x.Filters, callFilter(f))
			}
			h.BackendRefs = append(h.BackendRefs, x)
		}
		out.Spec.Rules = append(out.Spec.Rules, h)
	}
	return out
}

func callFilter(f gatewayv1.GRPCRouteFilter) gatewayv1.HTTPRouteFilter {
	return gatewayv1.HTTPRouteFilter{
		Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
		ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef,
	}
}

func callMatch(m gatewayv1.GRPCRouteMatch) gatewayv1.HTTPRouteMatch {
	post := gatewayv1.HTTPMethod(http.MethodPost)
	out := gatewayv1.HTTPRouteMatch{Method: &post}
	if m.Method != nil {
		service, method := deref(m.Method.Service, ""), deref(m.Method.Method, "")
		kind, path := gatewayv1.PathMatchExact, "/"+service+"/"+method
		switch regex := deref(m.Method.Type, gatewayv1.GRPCMethodMatchExact) == gatewayv1.GRPCMethodMatchRegularExpression; {
		case regex || service == "" && method != "":
			kind = gatewayv1.PathMatchRegularExpression
			part := func(s string) string {
				switch {
				case s == "":
					return "[^/]+"
				case regex:
					return "(?:" + s + ")"
				}
				return quote(s)
			}
			path = "/" + part(service) + "/" + part(method)
		case service != "" && method == "":
			kind, path = gatewayv1.PathMatchPathPrefix, "/"+service
		case service == "":
			kind, path = gatewayv1.PathMatchPathPrefix, "/"
		}
		out.Path = &gatewayv1.HTTPPathMatch{Type: &kind, Value: &path}
	}
	for _, h := range m.Headers {
		x := gatewayv1.HTTPHeaderMatch{Name: gatewayv1.HTTPHeaderName(h.Name), Value: h.Value}
		if h.Type != nil {
			t := gatewayv1.HeaderMatchType(*h.Type)
			x.Type = &t
		}
		out.Headers = append(out.Headers, x)
	}
	return out
}
