package table

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
)

// Host is the compiled rules of some hosts.
type Host struct {
	Name          string
	HTTPSRedirect bool
	Resource      *l7.Route // what it was compiled from

	set      string
	hosts    []string
	rules    []*Rule
	backends []string // that the rules lead to
}

// Rule is one compiled rule: conditions, and what to do with a request that meets them.
type Rule struct {
	Name, Source    string
	Forward         *Forward
	Redirect        *l7.Redirect
	Direct          *l7.DirectResponse
	Rewrite         *Rewrite
	RequestHeaders  *l7.HeaderOperations
	ResponseHeaders *l7.HeaderOperations
	Timeout         time.Duration // 0: none
	PerTry          time.Duration // 0: none
	Attempts        int           // tries after the first one
	RetryOn         []string      // empty: the defaults of the upstream
	Backoff         time.Duration // 0: the default of the upstream
	Fault           *l7.Fault     // nil: none
	CORS            *CORS         // nil: none
	Mirrors         []*l7.Mirror

	matches []match
}

// CORS is a compiled policy for requests of other origins.
type CORS struct {
	*l7.Cors
	origins []test
}

// Admits reports whether a page of the origin may read responses.
func (c *CORS) Admits(origin string) bool {
	return slices.ContainsFunc(c.origins, func(t test) bool { return t.holds("*") || t.holds(origin) })
}

func compileCORS(c *l7.Cors) (*CORS, error) {
	if c == nil {
		return nil, nil
	}
	out := &CORS{Cors: c}
	for _, o := range c.GetOrigins() {
		t, err := compileString(o, false)
		if err != nil {
			return nil, fmt.Errorf("origin: %w", err)
		}
		out.origins = append(out.origins, t)
	}
	return out, nil
}

// Forward is where a rule sends requests.
type Forward struct {
	To    []*l7.Destination
	Total uint64 // sum of the weights
}

func newForward(to []*l7.Destination) *Forward {
	f := &Forward{To: to}
	for _, d := range to {
		f.Total += uint64(d.GetWeight())
	}
	return f
}

// Pick chooses a destination by weight; n is a random number.
func (f *Forward) Pick(n uint64) *l7.Destination {
	if f.Total == 0 {
		return nil
	}
	n %= f.Total
	for _, d := range f.To {
		w := uint64(d.GetWeight())
		if n < w {
			return d
		}
		n -= w
	}
	return nil
}

// Rewrite changes the host and the path of a request.
type Rewrite struct {
	Host         string
	Path, Prefix *string
	Regex        *regexp.Regexp
	Substitution string
}

// Limits of what one resource may ask for; the program of a regular expression is bounded by its length.
const (
	maxRules = 20000
	maxRegex = 2048
)

func compile(r *l7.Route) (*Host, error) {
	h := &Host{Name: r.GetName(), HTTPSRedirect: r.GetHttpsRedirect(), Resource: r, set: r.GetSet()}
	if len(r.GetHosts()) == 0 {
		return nil, errors.New("no hosts")
	}
	for _, name := range r.GetHosts() {
		if name == "" || name != strings.ToLower(name) || strings.Contains(strings.TrimPrefix(name, "*."), "*") && name != "*" {
			return nil, fmt.Errorf("host %q is not lower case, or has a wildcard in another place than *.suffix", name)
		}
		h.hosts = append(h.hosts, name)
	}
	if n := len(r.GetRules()); n > maxRules {
		return nil, fmt.Errorf("%d rules, at most %d are allowed", n, maxRules)
	}
	for i, x := range r.GetRules() {
		rule, err := compileRule(x)
		if err != nil {
			return nil, fmt.Errorf("rule %d %s: %w", i, x.GetSource(), err)
		}
		h.rules = append(h.rules, rule)
		for _, d := range x.GetForward().GetDestinations() {
			if d.GetBackend() != "" {
				h.backends = append(h.backends, d.GetBackend())
			}
		}
		for _, m := range x.GetMirrors() {
			h.backends = append(h.backends, m.GetBackend())
		}
	}
	return h, nil
}

func compileRule(x *l7.Rule) (*Rule, error) {
	r := &Rule{
		Name: x.GetName(), Source: x.GetSource(), Redirect: x.GetRedirect(), Direct: x.GetDirectResponse(),
		RequestHeaders: x.GetRequestHeaders(), ResponseHeaders: x.GetResponseHeaders(),
		Timeout: x.GetTimeout().AsDuration(), PerTry: x.GetRetries().GetPerTryTimeout().AsDuration(),
		Attempts: defaultAttempts, RetryOn: x.GetRetries().GetOn(), Backoff: x.GetRetries().GetBackoff().AsDuration(),
		Fault: x.GetFault(), Mirrors: x.GetMirrors(),
	}
	var err error
	if r.CORS, err = compileCORS(x.GetCors()); err != nil {
		return nil, err
	}
	if s := r.Fault.GetAbortStatus(); s != 0 && (s < 200 || s > 599) {
		return nil, fmt.Errorf("fault with status %d", s)
	}
	if t := x.GetRetries(); t != nil {
		r.Attempts = int(min(t.GetAttempts(), maxAttempts))
		if t.GetDisabled() {
			r.Attempts = 0
		}
	}
	switch {
	case r.Direct != nil:
		if s := r.Direct.GetStatus(); s < 200 || s > 599 {
			return nil, fmt.Errorf("direct response with status %d", s)
		}
	case r.Redirect != nil:
		if c := r.Redirect.GetCode(); c < 300 || c > 399 {
			return nil, fmt.Errorf("redirect with status %d", c)
		}
	case x.GetForward() != nil:
		r.Forward = newForward(x.GetForward().GetDestinations())
	default:
		return nil, errors.New("neither a destination, nor a redirect, nor a response")
	}
	if w := x.GetRewrite(); w != nil {
		c, err := compileRewrite(w)
		if err != nil {
			return nil, err
		}
		r.Rewrite = c
	}
	for _, m := range x.GetMatches() {
		c, err := compileMatch(m)
		if err != nil {
			return nil, err
		}
		r.matches = append(r.matches, c)
	}
	return r, nil
}

// Istio's default policy: two more tries for failures that cannot have reached the application.
const (
	defaultAttempts = 2
	maxAttempts     = 25
)

func compileRewrite(w *l7.Rewrite) (*Rewrite, error) {
	r := &Rewrite{Host: w.GetHost()}
	switch k := w.GetPathKind().(type) {
	case *l7.Rewrite_Path:
		r.Path = &k.Path
	case *l7.Rewrite_Prefix:
		r.Prefix = &k.Prefix
	case *l7.Rewrite_Regex:
		re, err := compileRegex(k.Regex.GetMatch())
		if err != nil {
			return nil, fmt.Errorf("rewrite: %w", err)
		}
		r.Regex, r.Substitution = re, goSubstitution(k.Regex.GetSubstitution())
	}
	return r, nil
}

// goSubstitution turns RE2's \1 into regexp's ${1}, and keeps every $ of the author literal.
func goSubstitution(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '$':
			b.WriteString("$$")
		case s[i] == '\\' && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9':
			b.WriteString("${" + s[i+1:i+2] + "}")
			i++
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '\\':
			b.WriteByte('\\')
			i++
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func compileRegex(s string) (*regexp.Regexp, error) {
	if len(s) > maxRegex {
		return nil, fmt.Errorf("regular expression of %d bytes, at most %d are allowed", len(s), maxRegex)
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("regular expression: %w", err)
	}
	return re, nil
}
