package kinds

import (
	"time"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
)

func (v *validator) httpRoute(path string, r *networkingv1alpha3.HTTPRoute, delegate bool) {
	ends := 0
	for _, is := range []bool{len(r.Route) > 0, r.Redirect != nil, r.DirectResponse != nil, r.Delegate != nil} {
		if is {
			ends++
		}
	}
	switch {
	case ends == 0:
		v.fail(path, "add route, redirect, directResponse or delegate", "leads nowhere")
	case ends > 1:
		v.fail(path, "keep one of them", "has more than one of route, redirect, directResponse and delegate")
	}
	if delegate && r.Delegate != nil {
		v.fail(path+".delegate", "", "a VirtualService without hosts is itself delegated to, and cannot delegate")
	}
	for i, m := range r.Match {
		v.httpMatch(sub(path+".match", i), m)
	}
	for i, d := range r.Route {
		v.destination(sub(path+".route", i)+".destination", d.GetDestination())
		if d.GetWeight() < 0 {
			v.fail(sub(path+".route", i)+".weight", "", "is negative")
		}
	}
	if r.Timeout != nil {
		v.duration(path+".timeout", r.Timeout.AsDuration())
	}
	if t := r.GetRetries(); t != nil {
		if t.Attempts < 0 {
			v.fail(path+".retries.attempts", "", "is negative")
		}
		if t.PerTryTimeout != nil {
			v.duration(path+".retries.perTryTimeout", t.PerTryTimeout.AsDuration())
		}
	}
	v.fault(path+".fault", r.Fault)
	if r.Mirror != nil {
		v.destination(path+".mirror", r.Mirror)
	}
	for i, m := range r.Mirrors {
		v.destination(sub(path+".mirrors", i)+".destination", m.GetDestination())
		v.percent(sub(path+".mirrors", i)+".percentage", m.GetPercentage())
	}
	v.percent(path+".mirrorPercentage", r.MirrorPercentage)
	for i, o := range r.GetCorsPolicy().GetAllowOrigins() {
		v.match(sub(path+".corsPolicy.allowOrigins", i), o)
	}
	if d := r.GetRedirect(); d != nil && d.RedirectCode != 0 && (d.RedirectCode < 300 || d.RedirectCode > 399) {
		v.fail(path+".redirect.redirectCode", "", "%d is not a redirect", d.RedirectCode)
	}
	if d := r.GetDirectResponse(); d != nil && (d.Status < 200 || d.Status > 599) {
		v.fail(path+".directResponse.status", "", "%d is not a status that can end a request", d.Status)
	}
	if w := r.GetRewrite(); w != nil {
		if w.Uri == "" && w.Authority == "" && w.UriRegexRewrite == nil {
			v.fail(path+".rewrite", "", "rewrites nothing")
		}
		if w.UriRegexRewrite != nil {
			v.regex(path+".rewrite.uriRegexRewrite.match", w.UriRegexRewrite.Match)
		}
	}
}

func (v *validator) httpMatch(path string, m *networkingv1alpha3.HTTPMatchRequest) {
	for name, s := range map[string]*networkingv1alpha3.StringMatch{"uri": m.GetUri(), "scheme": m.GetScheme(), "method": m.GetMethod(), "authority": m.GetAuthority()} {
		if s != nil {
			v.match(path+"."+name, s)
		}
	}
	for field, set := range map[string]map[string]*networkingv1alpha3.StringMatch{
		"headers": m.GetHeaders(), "withoutHeaders": m.GetWithoutHeaders(), "queryParams": m.GetQueryParams(),
	} {
		for name, s := range set {
			if name == "" {
				v.fail(path+"."+field, "", "matches a name that is empty")
			}
			// Without a value, presence is enough.
			if r, ok := s.GetMatchType().(*networkingv1alpha3.StringMatch_Regex); ok {
				v.regex(path+"."+field+"."+name+".regex", r.Regex)
			}
		}
	}
	if m.GetPort() > 65535 {
		v.port(path+".port", m.Port)
	}
	v.labels(path+".sourceLabels", m.GetSourceLabels())
}

func (v *validator) match(path string, s *networkingv1alpha3.StringMatch) {
	switch t := s.GetMatchType().(type) {
	case *networkingv1alpha3.StringMatch_Exact:
		if t.Exact == "" {
			v.fail(path+".exact", "", "is empty")
		}
	case *networkingv1alpha3.StringMatch_Prefix:
		if t.Prefix == "" {
			v.fail(path+".prefix", "", "is empty")
		}
	case *networkingv1alpha3.StringMatch_Regex:
		v.regex(path+".regex", t.Regex)
	default:
		v.fail(path, "say exact, prefix or regex", "matches nothing")
	}
}

func (v *validator) duration(path string, d time.Duration) {
	if d < 0 || d > 0 && d < time.Millisecond {
		v.fail(path, "write at least 1ms, or 0s for none", "%s is too short", d)
	}
}

func (v *validator) percent(path string, p *networkingv1alpha3.Percent) {
	if p != nil && (p.Value < 0 || p.Value > 100) {
		v.fail(path+".value", "", "%g is not between 0 and 100", p.Value)
	}
}

func (v *validator) fault(path string, f *networkingv1alpha3.HTTPFaultInjection) {
	if f == nil {
		return
	}
	if f.Delay == nil && f.Abort == nil {
		v.fail(path, "add delay or abort", "injects no fault")
	}
	if a := f.Abort; a != nil {
		if s, ok := a.ErrorType.(*networkingv1alpha3.HTTPFaultInjection_Abort_HttpStatus); ok && (s.HttpStatus < 200 || s.HttpStatus > 599) {
			v.fail(path+".abort.httpStatus", "", "%d is not an HTTP status", s.HttpStatus)
		}
		v.percent(path+".abort.percentage", a.Percentage)
	}
	if d := f.Delay; d != nil {
		if t := d.GetFixedDelay(); t != nil {
			v.duration(path+".delay.fixedDelay", t.AsDuration())
		}
		v.percent(path+".delay.percentage", d.Percentage)
	}
}
