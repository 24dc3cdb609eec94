package table

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/api/l7"
)

func str(kind, v string) *l7.StringMatch {
	switch kind {
	case "exact":
		return &l7.StringMatch{Kind: &l7.StringMatch_Exact{Exact: v}}
	case "prefix":
		return &l7.StringMatch{Kind: &l7.StringMatch_Prefix{Prefix: v}}
	case "regex":
		return &l7.StringMatch{Kind: &l7.StringMatch_Regex{Regex: v}}
	case "segments":
		return &l7.StringMatch{Kind: &l7.StringMatch_PathPrefix{PathPrefix: v}}
	}
	return &l7.StringMatch{Kind: &l7.StringMatch_Present{Present: true}}
}

func rule(name string, ms ...*l7.Match) *l7.Rule {
	return &l7.Rule{Name: name, Matches: ms, Action: &l7.Rule_DirectResponse{DirectResponse: &l7.DirectResponse{Status: 200}}}
}

func set(t *testing.T, routes ...*l7.Route) *Set {
	t.Helper()
	b := NewBuilder()
	for i, r := range routes {
		r.Name, r.Set = r.GetHosts()[0], "s"
		if err := b.SetRoute(r); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := b.SetListener(&l7.Listener{Name: "l", Port: 80, Protocol: l7.Protocol_HTTP, Hosts: []string{"*"}, Routes: "s"}); err != nil {
		t.Fatal(err)
	}
	return b.Build().Ports[0].Listeners[0].Set
}

func TestHostsMatchTheMostSpecificFirst(t *testing.T) {
	var routes []*l7.Route
	for _, h := range []string{"*", "*.example.com", "*.shop.example.com", "a.shop.example.com"} {
		routes = append(routes, &l7.Route{Hosts: []string{h}, Rules: []*l7.Rule{rule(h)}})
	}
	s := set(t, routes...)
	for host, want := range map[string]string{
		"a.shop.example.com": "a.shop.example.com", "b.shop.example.com": "*.shop.example.com", "x.y.shop.example.com": "*.shop.example.com",
		"shop.example.com": "*.example.com", "example.com": "*", "other": "*", "": "*", "notexample.com": "*",
	} {
		got, ok := s.Match(&Query{Host: host, Path: "/"})
		if !ok || got.Rule.Name != want {
			t.Errorf("%q matches %v, want %s", host, got.Rule, want)
		}
	}
}

func TestRulesMatchInTheAuthorsOrder(t *testing.T) {
	header := func(name string, v *l7.StringMatch) []*l7.KeyMatch { return []*l7.KeyMatch{{Name: name, Value: v}} }
	s := set(t, &l7.Route{Hosts: []string{"*"}, Rules: []*l7.Rule{
		rule("prefix before exact", &l7.Match{Path: str("prefix", "/a")}),
		rule("never", &l7.Match{Path: str("exact", "/ab")}),
		rule("fold", &l7.Match{Path: str("exact", "/Case"), IgnorePathCase: true}),
		rule("regex", &l7.Match{Path: str("regex", "/r/[0-9]+")}),
		rule("segments", &l7.Match{Path: str("segments", "/seg/")}),
		rule("method", &l7.Match{Path: str("prefix", "/m"), Method: str("exact", "POST")}),
		rule("any of", &l7.Match{Path: str("exact", "/x")}, &l7.Match{Path: str("exact", "/y")}),
		rule("header", &l7.Match{Headers: header("x-role", str("exact", "admin"))}),
		rule("present", &l7.Match{Headers: header("x-any", str("", ""))}),
		rule("query", &l7.Match{Query: header("v", str("regex", "2|3"))}),
		rule("authority", &l7.Match{Authority: str("prefix", "admin.")}),
		rule("port", &l7.Match{Path: str("prefix", "/p"), Port: 443}),
		rule("without", &l7.Match{Path: str("prefix", "/w"), WithoutHeaders: header("x-no", str("", ""))}),
	}})
	for _, c := range []struct {
		name string
		q    Query
		want string // "" is none
	}{
		{"a prefix written first wins", Query{Path: "/ab"}, "prefix before exact"},
		{"case is ignored where asked", Query{Path: "/cASE"}, "fold"},
		{"a regex matches the whole path", Query{Path: "/r/12"}, "regex"},
		{"and no part of it", Query{Path: "/r/12/x"}, ""},
		{"segments match the prefix itself", Query{Path: "/seg"}, "segments"},
		{"and below", Query{Path: "/seg/x"}, "segments"},
		{"and no longer word", Query{Path: "/segment"}, ""},
		{"method", Query{Path: "/m", Method: "POST"}, "method"},
		{"methods have one case", Query{Path: "/m", Method: "post"}, ""},
		{"any match suffices", Query{Path: "/y"}, "any of"},
		{"second value of a header", Query{Header: http.Header{"X-Role": {"user", "admin"}}}, "header"},
		{"first value of a header", Query{Header: http.Header{"X-Role": {"admin", "user"}}}, "header"},
		{"joined values are one value", Query{Header: http.Header{"X-Role": {"user, admin"}}}, ""},
		{"presence", Query{Header: http.Header{"X-Any": {""}}}, "present"},
		{"query", Query{RawQuery: "v=1&v=3"}, "query"},
		{"another query", Query{RawQuery: "v=23"}, ""},
		{"authority", Query{Authority: "admin.x:80"}, "authority"},
		{"port", Query{Path: "/p", Port: 443}, "port"},
		{"other port", Query{Path: "/p", Port: 80}, ""},
		{"without a header", Query{Path: "/w"}, "without"},
		{"with the header", Query{Path: "/w", Header: http.Header{"X-No": {"1"}}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := s.Match(&c.q)
			if name := ""; ok {
				name = got.Rule.Name
				if name != c.want {
					t.Errorf("rule %q, want %q", name, c.want)
				}
			} else if c.want != "" {
				t.Errorf("no rule, want %q", c.want)
			}
		})
	}
}

func TestRoutesWaitForTheirBackends(t *testing.T) {
	b := NewBuilder()
	to := func(backend string) *l7.Route {
		return &l7.Route{Name: "r", Set: "s", Hosts: []string{"*"}, Rules: []*l7.Rule{{Action: &l7.Rule_Forward{
			Forward: &l7.Forward{Destinations: []*l7.Destination{{Backend: backend, Weight: 1}}},
		}}}}
	}
	now := func() string {
		t := b.Build()
		r, _ := t.Ports[0].Listeners[0].Set.Match(&Query{Path: "/"})
		name := r.Rule.Forward.Pick(0).GetBackend()
		if t.Backends[name] == nil {
			return name + " is not there"
		}
		return name
	}
	check := func(want string) {
		t.Helper()
		if got := now(); got != want {
			t.Errorf("requests go to %s, want %s", got, want)
		}
	}
	if err := b.SetListener(&l7.Listener{Name: "l", Port: 80, Protocol: l7.Protocol_HTTP, Routes: "s"}); err != nil {
		t.Fatal(err)
	}
	b.SetBackend(&l7.Backend{Name: "old"})
	if err := b.SetRoute(to("old")); err != nil {
		t.Fatal(err)
	}
	check("old")
	if err := b.SetRoute(to("new")); err != nil {
		t.Fatal(err)
	}
	b.RemoveBackend("old")
	check("old")
	b.SetBackend(&l7.Backend{Name: "new"})
	check("new")
	check("new")
	if b.backends["old"] != nil {
		t.Error("the old backend is kept though no route leads to it")
	}
}

func TestWeightsDivideRequests(t *testing.T) {
	f := &Forward{To: []*l7.Destination{{Backend: "a", Weight: 90}, {Backend: "b", Weight: 10}, {Backend: "c"}}, Total: 100}
	got := map[string]int{}
	for n := range uint32(1000) {
		got[f.Pick(uint64(n)).GetBackend()]++
	}
	if got["a"] != 900 || got["b"] != 100 || got["c"] != 0 {
		t.Errorf("picked %v", got)
	}
	if (&Forward{To: []*l7.Destination{{Backend: "a"}}}).Pick(7) != nil {
		t.Error("a destination without weight was picked")
	}
}

func TestBrokenResourcesAreRefused(t *testing.T) {
	b := NewBuilder()
	for name, r := range map[string]*l7.Route{
		"no host":           {Rules: []*l7.Rule{rule("x")}},
		"upper case host":   {Hosts: []string{"A"}},
		"wildcard inside":   {Hosts: []string{"a.*.b"}},
		"broken regex":      {Hosts: []string{"a"}, Rules: []*l7.Rule{rule("x", &l7.Match{Path: str("regex", "(")})}},
		"regex escapes":     {Hosts: []string{"a"}, Rules: []*l7.Rule{rule("x", &l7.Match{Path: str("regex", "a)|(b")})}},
		"huge regex":        {Hosts: []string{"a"}, Rules: []*l7.Rule{rule("x", &l7.Match{Path: str("regex", strings.Repeat("a", 3000))})}},
		"no action":         {Hosts: []string{"a"}, Rules: []*l7.Rule{{}}},
		"status of a reply": {Hosts: []string{"a"}, Rules: []*l7.Rule{{Action: &l7.Rule_DirectResponse{DirectResponse: &l7.DirectResponse{Status: 99}}}}},
	} {
		if b.SetRoute(r) == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, l := range map[string]*l7.Listener{
		"no port":         {Protocol: l7.Protocol_HTTP},
		"big port":        {Protocol: l7.Protocol_HTTP, Port: 70000},
		"bad bind":        {Protocol: l7.Protocol_HTTP, Port: 80, Bind: "x"},
		"no secret":       {Protocol: l7.Protocol_HTTPS, Port: 443},
		"not for a proxy": {Protocol: l7.Protocol_HBONE, Port: 80},
		"bad subnet":      {Protocol: l7.Protocol_TCP, Port: 80, Streams: []*l7.StreamRule{{Matches: []*l7.StreamMatch{{DestinationSubnets: []string{"10.0.0.0/33"}}}}}},
		"no secret, TLS":  {Protocol: l7.Protocol_TLS_TERMINATE, Port: 443},
	} {
		if b.SetListener(l) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzHostMatch(f *testing.F) {
	f.Add("*.example.com", "a.example.com")
	f.Add("*", "")
	f.Add("*.", ".")
	f.Fuzz(func(t *testing.T, pattern, host string) {
		if !matchHost(pattern, host) {
			return
		}
		switch {
		case pattern == "*", pattern == host:
		case strings.HasPrefix(pattern, "*.") && strings.HasSuffix(host, pattern[1:]) && len(host) > len(pattern)-1:
		default:
			t.Fatalf("%q matches %q", pattern, host)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	r := &l7.Route{Name: "r", Set: "s", Hosts: []string{"*"}}
	for range 100 {
		r.Rules = append(r.Rules, rule("x", &l7.Match{Path: str("exact", "/nothing")}))
	}
	r.Rules = append(r.Rules, rule("y", &l7.Match{Path: str("prefix", "/p")}))
	h, err := compile(r)
	if err != nil {
		b.Fatal(err)
	}
	s := &Set{any: h}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Match(&Query{Host: "a", Path: "/productpage"}); !ok {
			b.Fatal("no match")
		}
	}
}
