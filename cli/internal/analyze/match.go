package analyze

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
)

type (
	httpMatch   = networkingv1alpha3.HTTPMatchRequest
	stringMatch = networkingv1alpha3.StringMatch
)

// coveredBy tells whether one of a rule's matches takes every request that m takes. A rule without matches takes all.
func coveredBy(m *httpMatch, earlier []*httpMatch) bool {
	return len(earlier) == 0 || slices.ContainsFunc(earlier, func(e *httpMatch) bool { return covers(e, m) })
}

// covers tells whether every request that m takes is one that e takes. In doubt it says no.
func covers(e, m *httpMatch) bool {
	return coversURI(e, m) &&
		coversString(e.GetScheme(), m.GetScheme()) && coversString(e.GetMethod(), m.GetMethod()) && coversString(e.GetAuthority(), m.GetAuthority()) &&
		coversMap(e.GetHeaders(), m.GetHeaders()) && coversMap(e.GetQueryParams(), m.GetQueryParams()) && coversMap(e.GetWithoutHeaders(), m.GetWithoutHeaders()) &&
		(e.GetPort() == 0 || e.GetPort() == m.GetPort()) &&
		(e.GetSourceNamespace() == "" || e.GetSourceNamespace() == m.GetSourceNamespace()) &&
		within(e.GetSourceLabels(), m.GetSourceLabels()) &&
		(len(e.GetGateways()) == 0 || len(m.GetGateways()) > 0 && !slices.ContainsFunc(m.GetGateways(), func(g string) bool { return !slices.Contains(e.GetGateways(), g) }))
}

func coversURI(e, m *httpMatch) bool {
	if e.GetUri() == nil || e.GetUri().GetPrefix() == "/" {
		return true
	}
	if e.GetIgnoreUriCase() == m.GetIgnoreUriCase() {
		return coversString(e.GetUri(), m.GetUri())
	}
	return e.GetIgnoreUriCase() && coversString(lower(e.GetUri()), lower(m.GetUri()))
}

func lower(s *stringMatch) *stringMatch {
	switch t := s.GetMatchType().(type) {
	case *networkingv1alpha3.StringMatch_Exact:
		return &stringMatch{MatchType: &networkingv1alpha3.StringMatch_Exact{Exact: strings.ToLower(t.Exact)}}
	case *networkingv1alpha3.StringMatch_Prefix:
		return &stringMatch{MatchType: &networkingv1alpha3.StringMatch_Prefix{Prefix: strings.ToLower(t.Prefix)}}
	}
	return s
}

// coversString tells whether every value that m takes is one that e takes; nil takes all.
func coversString(e, m *stringMatch) bool {
	switch {
	case e == nil:
		return true
	case m == nil:
		return false
	case proto.Equal(e, m):
		return true
	}
	prefix, ok := e.GetMatchType().(*networkingv1alpha3.StringMatch_Prefix)
	if !ok {
		return false
	}
	switch t := m.GetMatchType().(type) {
	case *networkingv1alpha3.StringMatch_Exact:
		return strings.HasPrefix(t.Exact, prefix.Prefix)
	case *networkingv1alpha3.StringMatch_Prefix:
		return strings.HasPrefix(t.Prefix, prefix.Prefix)
	}
	return false
}

// coversMap tells whether m demands everything that e demands.
func coversMap(e, m map[string]*stringMatch) bool {
	for name, want := range e {
		have, ok := m[name]
		if !ok || !proto.Equal(want, have) && !coversString(want, have) {
			return false
		}
	}
	return true
}
