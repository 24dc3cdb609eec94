package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/api/explain"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
)

// fakeMesh holds objects by "kind namespace/name", and answers of pods by "pod path".
type fakeMesh struct {
	objects map[string]kinds.Object
	answers map[string]any
}

func (m *fakeMesh) Get(_ context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error) {
	if o := m.objects[k.Kind+" "+namespace+"/"+name]; o != nil {
		return o, nil
	}
	return nil, fmt.Errorf("%s %q not found", k.Plural, name)
}

func (m *fakeMesh) List(_ context.Context, k kinds.Kind, namespace, selector string) ([]kinds.Object, error) {
	var all []kinds.Object
	for key, o := range m.objects {
		label, value, _ := strings.Cut(selector, "=")
		if strings.HasPrefix(key, k.Kind+" "+namespace+"/") && o.GetLabels()[label] == value {
			all = append(all, o)
		}
	}
	return all, nil
}

func (m *fakeMesh) Pod(_ context.Context, _, _, pod string, _ int, path string) ([]byte, error) {
	a, ok := m.answers[pod+" "+path]
	if !ok {
		return nil, fmt.Errorf("nothing at %s of %s", path, pod)
	}
	return json.Marshal(a)
}

func (m *fakeMesh) Logs(context.Context, string, string, client.LogOptions) (io.ReadCloser, error) {
	return nil, errors.New("no logs")
}

func newFakeMesh() *fakeMesh {
	pod := func(namespace, name, node, ip string, labels map[string]string) kinds.Object {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}, Spec: corev1.PodSpec{NodeName: node},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip},
		}
	}
	return &fakeMesh{
		objects: map[string]kinds.Object{
			"Pod default/sleep":   pod("default", "sleep", "n1", "10.0.1.2", nil),
			"Pod default/web":     pod("default", "web", "n2", "10.0.2.2", nil),
			"Pod istio-system/z1": pod("istio-system", "z1", "n1", "10.0.1.9", map[string]string{"app": "ztunnel"}),
			"Pod istio-system/z2": pod("istio-system", "z2", "n2", "10.0.2.9", map[string]string{"app": "ztunnel"}),
			"Namespace /default":  &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
			"Service default/web": &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.5", Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}},
		},
		answers: map[string]any{},
	}
}

func explained(t *testing.T, m *fakeMesh, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	l := newLook(Env{Out: &out})
	l.namespace = "default"
	l.settled.Do(func() { l.at = site{reach: m} })
	e, err := l.explain(t.Context(), args[0], args[1])
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestExplainJoinsBothEnds(t *testing.T) {
	m := newFakeMesh()
	m.answers["z1 /explain?from=default%2Fsleep&to=10.96.0.5%3A80"] = explain.Outbound{
		Captured: true, Source: "k//Pod/default/sleep", Address: "10.0.1.2", Identity: "spiffe://td/ns/default/sa/sleep", Certificate: "Available",
		Dialled: "10.96.0.5:80", Service: "default/web.local", Kind: "HBONE", Type: "Direct", Hop: "10.0.2.2:15008", Expect: []string{"spiffe://td/ns/default/sa/web"},
		Endpoints: []explain.Endpoint{{UID: "k//Pod/default/web", Namespace: "default", Name: "web", Node: "n2", Address: "10.0.2.2:8080", HBONE: true}},
	}
	m.answers["z2 /explain?at=default%2Fweb&from=10.0.1.2&peer=spiffe%3A%2F%2Ftd%2Fns%2Fdefault%2Fsa%2Fsleep&to=10.0.2.2%3A8080"] = explain.Inbound{
		Captured: true, Peer: "spiffe://td/ns/default/sa/sleep", Reason: "explicitly denied by: default/no",
		Policies: []explain.Policy{{Name: "default/no", Action: "DENY", Matched: true, Why: "rule 0: port 8080 is 8080"}, {Name: "default/yes", Action: "ALLOW", DryRun: true, Why: "rule 0: namespace default is not other"}},
	}
	const want = `From default/sleep to web:http
1. captured     yes: the ztunnel of n1 serves default/sleep
2. identity     spiffe://td/ns/default/sa/sleep, certificate available
3. resolved     10.96.0.5:80 is service default/web.local, with 1 endpoint(s) for this port
                default/web at 10.0.2.2:8080 on n2
4. travels      by HBONE (mutual TLS) to 10.0.2.2:15008, which must be spiffe://td/ns/default/sa/web
5. policy       at default/web
                DENY default/no matches: rule 0: port 8080 is 8080
                ALLOW default/yes (dry run) does not match: rule 0: namespace default is not other
                denied: explicitly denied by: default/no
6. result       DENIED: connection closed due to policy rejection: explicitly denied by: default/no
                to let it in, change or delete default/no
`
	if got := explained(t, m, "sleep", "web:http"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestExplainWithoutCaptureProvesNothing(t *testing.T) {
	m := newFakeMesh()
	m.answers["z1 /explain?from=default%2Fsleep&to=10.0.2.2%3A9090"] = explain.Outbound{
		Address: "10.0.1.2", Identity: "spiffe://td/ns/default/sa/sleep", Dialled: "10.0.2.2:9090", Kind: "HBONE", Type: "Direct",
		Endpoints: []explain.Endpoint{{UID: "k//Pod/default/web", Namespace: "default", Name: "web", Node: "n2", Address: "10.0.2.2:9090", HBONE: true}},
	}
	m.answers["z2 /explain?at=default%2Fweb&from=10.0.1.2&to=10.0.2.2%3A9090"] = explain.Inbound{Captured: true, Allow: true, Policies: []explain.Policy{}, Why: "no ALLOW policy applies"}
	const want = `From default/sleep to 10.0.2.2:9090
1. captured     no: neither the pod nor its namespace has the label istio.io/dataplane-mode=ambient
2. identity     none that it could prove
3. resolved     10.0.2.2:9090 is workload k//Pod/default/web
                default/web at 10.0.2.2:9090 on n2
4. travels      as plain text, straight from the pod: the mesh does not touch it
5. policy       at default/web
                no policy applies
                allowed: no ALLOW policy applies
6. result       ALLOWED, as plain text
`
	if got := explained(t, m, "sleep", "10.0.2.2:9090"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestLastFailuresOfAllNodes(t *testing.T) {
	m := newFakeMesh()
	at := time.Date(2026, 11, 25, 4, 0, 0, 0, time.UTC)
	m.answers["z1 /last?n=2"] = []explain.Failure{{Time: at.Add(2 * time.Second), Direction: "outbound", Source: "default/sleep", SourceAddr: "10.0.1.2:4", DestAddr: "10.0.2.2:80", Error: "http status: 401 Unauthorized"}}
	m.answers["z2 /last?n=2"] = []explain.Failure{
		{Time: at, Error: "too old to be shown"},
		{Time: at.Add(time.Second), Direction: "inbound", SourceAddr: "10.0.1.2:5", Dest: "default/web", DestAddr: "10.0.2.2:80", Service: "web.local", Error: "denied", Policy: "default/no", Why: "port 80 is 80"},
	}
	var out bytes.Buffer
	l := newLook(Env{Out: &out})
	l.settled.Do(func() { l.at = site{reach: m} })
	if err := l.explainLast(t.Context(), 2, ""); err != nil {
		t.Fatal(err)
	}
	const want = `2026-11-25T04:00:01Z  inbound  10.0.1.2:5 -> default/web (10.0.2.2:80, web.local)  denied
    policy default/no: port 80 is 80
2026-11-25T04:00:02Z  outbound  default/sleep (10.0.1.2:4) -> 10.0.2.2:80  http status: 401 Unauthorized
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
