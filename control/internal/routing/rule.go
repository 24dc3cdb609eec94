package routing

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/api/l7"
)

// rules are those of a VirtualService that apply to a server, in order. What follows a rule that matches everything
// can never be reached and is left out.
func (x *planner) rules(vs *networkingv1.VirtualService, sv *server, gateway string) []*l7.Rule {
	var out []*l7.Rule
	for _, e := range x.entries(vs) {
		matches, ok := x.matches(e.vs, e.http, gateway)
		if !ok {
			continue
		}
		base, ok := x.rule(sv, e)
		if !ok {
			continue
		}
		base.Matches = matches
		if err := checkRule(base); err != nil {
			x.problem("VirtualService", e.vs.Namespace, e.vs.Name, "%s: %v; the rule is not in force", e.where, err)
			continue
		}
		base.Matches = nil
		all := len(matches) == 0
		var some []*l7.Match
		for _, m := range matches {
			if everything(m) {
				all = true
				break
			}
			some = append(some, m)
		}
		if len(some) > 0 {
			base.Matches = some
			out = append(out, base)
		}
		if all {
			last := base
			if len(some) > 0 {
				last, _ = x.rule(sv, e)
			}
			last.Matches = nil
			return append(out, last)
		}
	}
	return out
}

func catchAll(r *l7.Rule) bool { return len(r.GetMatches()) == 0 }

// everything reports whether a match has no condition, or only a path that every request has.
func everything(m *l7.Match) bool {
	path := m.GetPath()
	any := path == nil || path.GetPrefix() == "/" || path.GetRegex() == ".*"
	return any && m.GetScheme() == nil && m.GetMethod() == nil && m.GetAuthority() == nil && m.GetPort() == 0 &&
		len(m.GetHeaders()) == 0 && len(m.GetWithoutHeaders()) == 0 && len(m.GetQuery()) == 0
}

// matches converts the conditions; false means that the rule is not for this proxy.
func (x *planner) matches(vs *networkingv1.VirtualService, h *networking.HTTPRoute, gateway string) ([]*l7.Match, bool) {
	var out []*l7.Match
	for _, m := range h.GetMatch() {
		if g := m.GetGateways(); len(g) > 0 && !slices.ContainsFunc(g, func(s string) bool { return gatewayKey(s, vs.Namespace) == gateway }) {
			continue
		}
		if ns := m.GetSourceNamespace(); ns != "" && ns != x.plan.Proxy.Namespace {
			continue
		}
		if !covers(m.GetSourceLabels(), x.plan.Proxy.Labels) {
			continue
		}
		out = append(out, &l7.Match{
			Path: stringMatch(m.GetUri()), IgnorePathCase: m.GetIgnoreUriCase(), Scheme: stringMatch(m.GetScheme()),
			Method: stringMatch(m.GetMethod()), Authority: stringMatch(m.GetAuthority()), Headers: keyMatches(m.GetHeaders()),
			WithoutHeaders: keyMatches(m.GetWithoutHeaders()), Query: keyMatches(m.GetQueryParams()), Port: m.GetPort(),
		})
	}
	return out, len(h.GetMatch()) == 0 || len(out) > 0
}

func keyMatches(in map[string]*networking.StringMatch) []*l7.KeyMatch {
	var out []*l7.KeyMatch
	for _, k := range slices.Sorted(maps.Keys(in)) {
		v := stringMatch(in[k])
		if v == nil {
			v = &l7.StringMatch{Kind: &l7.StringMatch_Present{Present: true}}
		}
		out = append(out, &l7.KeyMatch{Name: k, Value: v})
	}
	return out
}

func stringMatch(m *networking.StringMatch) *l7.StringMatch {
	switch k := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return &l7.StringMatch{Kind: &l7.StringMatch_Exact{Exact: k.Exact}}
	case *networking.StringMatch_Prefix:
		return &l7.StringMatch{Kind: &l7.StringMatch_Prefix{Prefix: k.Prefix}}
	case *networking.StringMatch_Regex:
		return &l7.StringMatch{Kind: &l7.StringMatch_Regex{Regex: k.Regex}}
	}
	return nil
}

// rule converts what a rule does.
func (x *planner) rule(sv *server, e entry) (*l7.Rule, bool) {
	vs, h := e.vs, e.http
	no := func(format string, args ...any) {
		x.problem("VirtualService", vs.Namespace, vs.Name, e.where+": "+format, args...)
	}
	r := &l7.Rule{
		Name: h.GetName(), Source: "VirtualService/" + vs.Namespace + "/" + vs.Name, Timeout: h.GetTimeout(),
		Rewrite: rewrite(h.GetRewrite()), Retries: retries(h.GetRetries()),
		RequestHeaders: headers(h.GetHeaders().GetRequest()), ResponseHeaders: headers(h.GetHeaders().GetResponse()),
		Fault: fault(h.GetFault(), no), Cors: cors(h.GetCorsPolicy()), Mirrors: x.mirrors(vs, sv, h),
	}
	switch {
	case h.GetRedirect() != nil:
		r.Action = &l7.Rule_Redirect{Redirect: redirect(h.GetRedirect(), sv.number)}
	case h.GetDirectResponse() != nil:
		d := &l7.DirectResponse{Status: h.GetDirectResponse().GetStatus(), Body: []byte(h.GetDirectResponse().GetBody().GetString_())}
		if b := h.GetDirectResponse().GetBody().GetBytes(); len(b) > 0 {
			d.Body = b
		}
		r.Action = &l7.Rule_DirectResponse{DirectResponse: d}
	case len(h.GetRoute()) > 0:
		f := &l7.Forward{}
		for _, d := range h.GetRoute() {
			w := uint32(max(d.GetWeight(), 0))
			if len(h.GetRoute()) == 1 {
				w = 1
			}
			f.Destinations = append(f.Destinations, &l7.Destination{
				Backend: x.destination(vs, sv, d.GetDestination()), Weight: w,
				RequestHeaders: headers(d.GetHeaders().GetRequest()), ResponseHeaders: headers(d.GetHeaders().GetResponse()),
			})
		}
		r.Action = &l7.Rule_Forward{Forward: f}
	default:
		no("neither route, redirect nor directResponse")
		return nil, false
	}
	return r, true
}

// destination names the backend of a destination and notes that it is needed.
func (x *planner) destination(vs *networkingv1.VirtualService, sv *server, d *networking.Destination) string {
	ref := Ref{
		Proxy: x.plan.Proxy.Name, Host: strings.ToLower(fullName(d.GetHost(), vs.Namespace, x.ClusterDomain)),
		Port: d.GetPort().GetNumber(), Subset: d.GetSubset(), From: vs.Namespace, Listener: sv.number,
	}
	if ref.Port != 0 {
		ref.Listener = 0
	}
	if _, ok := x.refs[ref.Name()]; !ok {
		x.refs[ref.Name()] = struct{}{}
		x.plan.Backends = append(x.plan.Backends, ref)
	}
	return ref.Name()
}

func rewrite(w *networking.HTTPRewrite) *l7.Rewrite {
	if w == nil {
		return nil
	}
	out := &l7.Rewrite{Host: w.GetAuthority()}
	switch {
	case w.GetUriRegexRewrite() != nil:
		out.PathKind = &l7.Rewrite_Regex{Regex: &l7.RegexRewrite{
			Match: w.GetUriRegexRewrite().GetMatch(), Substitution: w.GetUriRegexRewrite().GetRewrite(),
		}}
	case w.GetUri() != "":
		out.PathKind = &l7.Rewrite_Prefix{Prefix: w.GetUri()}
	}
	return out
}

func redirect(d *networking.HTTPRedirect, port uint32) *l7.Redirect {
	out := &l7.Redirect{Code: d.GetRedirectCode(), Scheme: d.GetScheme(), Host: d.GetAuthority()}
	if out.Code == 0 {
		out.Code = http.StatusMovedPermanently
	}
	switch k := d.GetRedirectPort().(type) {
	case *networking.HTTPRedirect_Port:
		out.Port = k.Port
	case *networking.HTTPRedirect_DerivePort:
		if k.DerivePort == networking.HTTPRedirect_FROM_REQUEST_PORT {
			out.Port = port
		} else {
			out.ProtocolDefaultPort = true
		}
	}
	switch {
	case d.GetPrefixRewrite() != "":
		out.PathKind = &l7.Redirect_Prefix{Prefix: d.GetPrefixRewrite()}
	case d.GetUri() != "":
		out.PathKind = &l7.Redirect_Path{Path: d.GetUri()}
	}
	return out
}

func headers(h *networking.Headers_HeaderOperations) *l7.HeaderOperations {
	if h == nil {
		return nil
	}
	return &l7.HeaderOperations{Set: h.GetSet(), Add: h.GetAdd(), Remove: h.GetRemove()}
}

func retries(r *networking.HTTPRetry) *l7.Retries {
	if r == nil {
		return nil
	}
	out := &l7.Retries{Attempts: uint32(max(r.GetAttempts(), 0)), PerTryTimeout: r.GetPerTryTimeout(), Disabled: r.GetAttempts() == 0, Backoff: r.GetBackoff()}
	for on := range strings.SplitSeq(r.GetRetryOn(), ",") {
		if on = strings.TrimSpace(on); on != "" {
			out.On = append(out.On, on)
		}
	}
	return out
}
