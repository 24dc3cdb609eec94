package ztunnel

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/explain"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/inpod"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// explaining is a node proxy that runs nothing: it knows sleep, which it serves, and web behind a service and a policy.
func explaining(t *testing.T) *Ztunnel {
	t.Helper()
	z := &Ztunnel{
		conf:    Config{ClusterID: "k", Log: slog.New(slog.DiscardHandler)},
		state:   state.New(state.Config{TrustDomain: "td", Pick: func(uint64) uint64 { return 0 }}),
		certs:   certs.New(certs.Config{Log: slog.New(slog.DiscardHandler)}),
		proxies: map[string]*running{"u": {pod: inpod.Pod{Namespace: "a", Name: "sleep"}}},
	}
	z.routes = z.newResolver()
	pod := func(name, ip string) *workload.Workload {
		return &workload.Workload{
			Uid: "k//Pod/a/" + name, Name: name, Namespace: "a", ServiceAccount: name, Addresses: [][]byte{netip.MustParseAddr(ip).AsSlice()},
			TunnelProtocol: workload.TunnelProtocol_HBONE, Node: "n-" + name,
		}
	}
	web := pod("web", "10.0.0.2")
	web.Services = map[string]*workload.PortList{"a/web.local": {Ports: []*workload.Port{{ServicePort: 80, TargetPort: 8080}}}}
	web.AuthorizationPolicies = []string{"a/only-sleep"}
	svc := &workload.Service{Name: "web", Namespace: "a", Hostname: "web.local", Addresses: []*workload.NetworkAddress{{Address: []byte{10, 96, 0, 1}}}, Ports: []*workload.Port{{ServicePort: 80, TargetPort: 8080}}}
	var all []*workload.Address
	for _, w := range []*workload.Workload{pod("sleep", "10.0.0.1"), web} {
		all = append(all, &workload.Address{Type: &workload.Address_Workload{Workload: w}})
	}
	all = append(all, &workload.Address{Type: &workload.Address_Service{Service: svc}})
	if err := z.state.ApplyAddresses(state.Addresses{Set: all}); err != nil {
		t.Fatal(err)
	}
	policy := &authorization.Authorization{
		Name: "only-sleep", Namespace: "a", Scope: authorization.Scope_WORKLOAD_SELECTOR, Action: authorization.Action_ALLOW,
		Rules: []*authorization.Rule{{Clauses: []*authorization.Clause{{Matches: []*authorization.Match{{
			Principals: []*authorization.StringMatch{{MatchType: &authorization.StringMatch_Exact{Exact: "td/ns/a/sa/sleep"}}},
		}}}}}},
	}
	if err := z.state.ApplyPolicies(state.Policies{Set: []*authorization.Authorization{policy}}); err != nil {
		t.Fatal(err)
	}
	return z
}

func ask[T any](t *testing.T, z *Ztunnel, page, query string) (v T, status int) {
	t.Helper()
	w := httptest.NewRecorder()
	z.Pages()[page].ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", page+"?"+query, nil))
	if w.Code == 200 {
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
	}
	return v, w.Code
}

func TestExplainTellsTheRoute(t *testing.T) {
	z := explaining(t)
	for _, to := range []string{"10.96.0.1:80", "web.local:80", "WEB.local.a.svc.cluster.local.:80"} { // a name as the pod would be answered
		got, status := ask[explain.Outbound](t, z, "/explain", "from=a/sleep&to="+to)
		if status != 200 || !got.Captured || got.Kind != "HBONE" || got.Service != "a/web.local" || got.Hop != "10.0.0.2:15008" ||
			len(got.Endpoints) != 1 || got.Endpoints[0].Address != "10.0.0.2:8080" || got.Endpoints[0].Node != "n-web" {
			t.Errorf("to %s = %d %+v", to, status, got)
		}
	}
	if got, _ := ask[explain.Outbound](t, z, "/explain", "from=a/web&to=192.0.2.1:443"); got.Captured || got.Kind != "Passthrough" || len(got.Endpoints) != 0 {
		t.Errorf("outside = %+v", got)
	}
	if got, _ := ask[explain.Outbound](t, z, "/explain", "from=a/sleep&to=10.96.0.1:81"); got.Kind != "Refuse" || !strings.HasPrefix(got.Why, "no healthy upstream: 10.96.0.1:81: ") {
		t.Errorf("no such port = %+v", got)
	}
	for _, q := range []string{"from=a/nobody&to=10.0.0.2:80", "from=a/sleep&to=10.0.0.2", "from=a/sleep&to=no.such:80", "at=a/web&from=x&to=10.0.0.2:80", "at=a/web&from=10.0.0.1&to=10.0.0.2:80&peer=x"} {
		if _, status := ask[explain.Outbound](t, z, "/explain", q); status != 400 {
			t.Errorf("%s = %d, want 400", q, status)
		}
	}
}

func TestExplainTellsWhatPoliciesSay(t *testing.T) {
	z := explaining(t)
	for peer, allow := range map[string]bool{"spiffe://td/ns/a/sa/sleep": true, "spiffe://td/ns/a/sa/web": false, "": false} {
		got, status := ask[explain.Inbound](t, z, "/explain", "at=a/web&from=10.0.0.1&to=10.0.0.2:8080&peer="+peer)
		if status != 200 || got.Captured || got.Allow != allow || len(got.Policies) != 1 || got.Policies[0].Matched != allow || got.Policies[0].Name != "a/only-sleep" {
			t.Errorf("peer %q = %d %+v", peer, status, got)
		}
	}
}

func TestOnlyTheLastFailuresAreKept(t *testing.T) {
	z := explaining(t)
	for i := range lastFailures + 3 {
		z.failures.add(telemetry.Record{Err: fmt.Sprint(i), Src: telemetry.Party{Identity: identity.ID{TrustDomain: "td", Namespace: "a", ServiceAccount: "b"}}})
	}
	all, _ := ask[[]explain.Failure](t, z, "/last", "")
	if len(all) != lastFailures || all[0].Error != "3" || all[len(all)-1].Error != fmt.Sprint(lastFailures+2) {
		t.Errorf("%d kept, from %q to %q", len(all), all[0].Error, all[len(all)-1].Error)
	}
	if two, _ := ask[[]explain.Failure](t, z, "/last", "n=2"); len(two) != 2 || two[1] != all[len(all)-1] {
		t.Errorf("the last two = %+v", two)
	}
}
