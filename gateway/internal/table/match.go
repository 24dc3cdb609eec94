package table

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/ambit-mesh/ambit/api/l7"
)

// Query is what rules look at. Path and Host are canonical (package canon).
type Query struct {
	Host      string
	Authority string // as the client wrote it, lower case
	Path      string
	RawQuery  string
	Scheme    string
	Method    string
	Header    http.Header
	Port      uint32 // the service port
}

// Route is the rule that a request met, and how much of its path a prefix condition took.
type Route struct {
	Host   *Host
	Rule   *Rule
	Prefix string // what a prefix rewrite replaces; empty if another kind of condition matched
}

// Match gives the first rule that the request meets. No host means that nothing is served under this name.
func (s *Set) Match(q *Query) (Route, bool) {
	h := s.Host(q.Host)
	if h == nil {
		return Route{}, false
	}
	for _, r := range h.rules {
		if len(r.matches) == 0 {
			return Route{Host: h, Rule: r, Prefix: "/"}, true
		}
		for i := range r.matches {
			if r.matches[i].holds(q) {
				return Route{Host: h, Rule: r, Prefix: r.matches[i].prefix}, true
			}
		}
	}
	return Route{Host: h}, false
}

// test is one compiled string condition. The zero value holds for everything.
type test func(string) bool

type match struct {
	path, scheme, method, authority test
	prefix                          string
	headers, without, query         []keyTest
	port                            uint32
}

type keyTest struct {
	name    string
	present bool // the value does not matter
	value   test
}

func compileMatch(m *l7.Match) (match, error) {
	c := match{port: m.GetPort()}
	var err error
	if c.path, err = compileString(m.GetPath(), m.GetIgnorePathCase()); err != nil {
		return c, fmt.Errorf("path: %w", err)
	}
	switch k := m.GetPath().GetKind().(type) {
	case *l7.StringMatch_Prefix:
		c.prefix = k.Prefix
	case *l7.StringMatch_PathPrefix:
		c.prefix = strings.TrimSuffix(k.PathPrefix, "/")
		if c.prefix == "" {
			c.prefix = "/"
		}
	case nil:
		c.prefix = "/"
	}
	if c.scheme, err = compileString(m.GetScheme(), false); err != nil {
		return c, fmt.Errorf("scheme: %w", err)
	}
	if c.method, err = compileString(m.GetMethod(), false); err != nil {
		return c, fmt.Errorf("method: %w", err)
	}
	if c.authority, err = compileString(m.GetAuthority(), false); err != nil {
		return c, fmt.Errorf("authority: %w", err)
	}
	for _, l := range []struct {
		what string
		in   []*l7.KeyMatch
		out  *[]keyTest
		key  func(string) string
	}{
		{"header", m.GetHeaders(), &c.headers, http.CanonicalHeaderKey},
		{"header", m.GetWithoutHeaders(), &c.without, http.CanonicalHeaderKey},
		{"query parameter", m.GetQuery(), &c.query, func(s string) string { return s }},
	} {
		for _, k := range l.in {
			t, err := compileString(k.GetValue(), false)
			if err != nil {
				return c, fmt.Errorf("%s %s: %w", l.what, k.GetName(), err)
			}
			*l.out = append(*l.out, keyTest{name: l.key(k.GetName()), present: k.GetValue().GetPresent(), value: t})
		}
	}
	return c, nil
}

func compileString(m *l7.StringMatch, fold bool) (test, error) {
	lower := func(s string) string {
		if fold {
			return strings.ToLower(s)
		}
		return s
	}
	switch k := m.GetKind().(type) {
	case nil:
		return nil, nil
	case *l7.StringMatch_Exact:
		want := lower(k.Exact)
		return func(s string) bool { return lower(s) == want }, nil
	case *l7.StringMatch_Prefix:
		want := lower(k.Prefix)
		return func(s string) bool { return strings.HasPrefix(lower(s), want) }, nil
	case *l7.StringMatch_Suffix:
		want := lower(k.Suffix)
		return func(s string) bool { return strings.HasSuffix(lower(s), want) }, nil
	case *l7.StringMatch_PathPrefix:
		want := strings.TrimSuffix(lower(k.PathPrefix), "/")
		return func(s string) bool {
			rest, ok := strings.CutPrefix(lower(s), want)
			return ok && (rest == "" || rest[0] == '/')
		}, nil
	case *l7.StringMatch_Regex:
		return compileFull(k.Regex)
	case *l7.StringMatch_Present:
		return nil, nil
	}
	return nil, fmt.Errorf("unknown kind of condition %T", m.GetKind())
}

// compileFull compiles a regular expression that must match the whole value.
func compileFull(s string) (test, error) {
	bare, err := compileRegex(s)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(`\A(?:` + s + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("regular expression: %w", err)
	}
	// Most values fail at the bytes that every match begins with; the machine is asked about the others alone.
	first, _ := bare.LiteralPrefix()
	return func(v string) bool { return strings.HasPrefix(v, first) && re.MatchString(v) }, nil
}

func (t test) holds(s string) bool { return t == nil || t(s) }

func (m *match) holds(q *Query) bool {
	if m.port != 0 && m.port != q.Port || !m.path.holds(q.Path) || !m.method.holds(q.Method) ||
		!m.scheme.holds(q.Scheme) || !m.authority.holds(q.Authority) {
		return false
	}
	for i := range m.headers {
		if !m.headers[i].any(headerValues(q, m.headers[i].name)) {
			return false
		}
	}
	for i := range m.without {
		if m.without[i].any(headerValues(q, m.without[i].name)) {
			return false
		}
	}
	if len(m.query) > 0 {
		params := queryOf(q.RawQuery)
		for i := range m.query {
			if !m.query[i].any(params[m.query[i].name]) {
				return false
			}
		}
	}
	return true
}

// any holds if one of the values meets the condition; without values it never does.
func (k *keyTest) any(values []string) bool {
	for _, v := range values {
		if k.present || k.value.holds(v) {
			return true
		}
	}
	return false
}

func headerValues(q *Query, name string) []string {
	if name == "Host" {
		return []string{q.Authority}
	}
	return q.Header[name]
}

// queryOf reads parameters; a pair that cannot be read is left out, so that no condition holds on it.
func queryOf(raw string) url.Values {
	v, err := url.ParseQuery(raw)
	if err != nil && v == nil {
		return url.Values{}
	}
	return v
}
