package status

import (
	"fmt"
	"strings"
	"testing"
	"time"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func need(name string, generation int64, annotations map[string]string) Need {
	return Need{Of: &securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: "n", Name: name, UID: types.UID("u-" + name), Generation: generation, Annotations: annotations,
	}}, Types: []string{"policy"}, Names: []string{"n/" + name}}
}

func sent(t *testing.T, r Report) *Report {
	t.Helper()
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 250<<10 {
		t.Errorf("a report of %d bytes", len(data))
	}
	out, err := DecodeReport(data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What one control plane finds of its proxies, another says of them in the same words.
func TestReport(t *testing.T) {
	now := time.Now()
	proxy := func(name string, through time.Time, refused string) Proxy {
		return Proxy{Name: name, Connected: true, Through: map[string]time.Time{"policy": through}, Refused: func(_, resource string) string {
			if resource == "n/bad" {
				return refused
			}
			return ""
		}}
	}
	ours := []Proxy{proxy("z1", now, ""), proxy("z2", now, "too long"), proxy("z3", now.Add(-time.Hour), "")}
	good, bad, old := need("good", 1, nil), need("bad", 1, nil), need("old", 1, nil)
	found := map[Mark]Verdict{}
	when := map[string]time.Time{good.Key(): now, bad.Key(): now, old.Key(): now.Add(-2 * time.Hour)}
	for _, n := range []Need{good, bad, old} {
		found[n.Mark()] = Judge(n, when[n.Key()], ours)
	}
	r := sent(t, NewReport(ours, found))
	elsewhere := make([]Proxy, len(ours))
	for i, p := range ours {
		elsewhere[i] = Proxy{Name: p.Name, Connected: true, Elsewhere: r}
	}
	for _, n := range []Need{good, bad, old} {
		here, there := Judge(n, when[n.Key()], ours).Condition(1), Judge(n, now.Add(time.Hour), elsewhere).Condition(1)
		if here != there {
			t.Errorf("%s: here %+v, there %+v", n.Of.GetName(), here, there)
		}
	}
	for what, n := range map[string]Need{
		"a later generation": need("old", 2, nil), "another object": need("new", 1, nil), "a dry run that ends": need("old", 1, map[string]string{"istio.io/dry-run": "true"}),
	} {
		if v := Judge(n, now, elsewhere); v.Have != 0 || !strings.Contains(v.Condition(1).Message, "has not told of it yet") {
			t.Errorf("%s: %+v", what, v)
		}
	}
}

// What does not fit is not said to be in force.
func TestReportIsBounded(t *testing.T) {
	var ours []Proxy
	for i := range 400 {
		ours = append(ours, Proxy{Name: fmt.Sprintf("ztunnel-%04d.istio-system", i), Connected: true})
	}
	found := map[Mark]Verdict{}
	var all, none []Need
	for i := range 20_000 {
		n := need(fmt.Sprint(i), 1, nil)
		all = append(all, n)
		found[n.Mark()] = Verdict{Have: len(ours), Of: len(ours)}
	}
	for i := range 50 {
		n := need(fmt.Sprint("late-", i), 1, nil)
		none = append(none, n)
		found[n.Mark()] = Verdict{Of: len(ours), Lag: []Lagging{{ours[i].Name, strings.Repeat("ü", 4000), true}}}
	}
	r := sent(t, NewReport(ours, found))
	if !r.Cut {
		t.Error("it does not say that something is left out")
	}
	have := 0
	for _, n := range all {
		if why, _ := r.lag(n.Mark(), ours[0].Name); why == "" {
			have++
		}
	}
	if have != mostMarks {
		t.Errorf("%d needs are told to be in force", have)
	}
	for i, n := range none {
		if why, _ := r.lag(n.Mark(), ours[i].Name); why == "" {
			t.Errorf("%s is said to be in force where it is not", n.Of.GetName())
		}
	}
}

func FuzzReport(f *testing.F) {
	m := need("x", 1, nil).Mark()
	for _, r := range []Report{{}, {Proxies: []string{"a"}, Have: m[:], Lags: []Lags{{m[:], []Lagging{{"a", "why", true}}}}}} {
		data, err := r.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"have":"AA==","lags":[{"need":"","those":null}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeReport(data)
		if err != nil {
			return
		}
		if why, _ := r.lag(m, "a"); len(why) > 2*longestLag {
			t.Fatal("a long reason")
		}
	})
}
