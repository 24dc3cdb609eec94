package table

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

const objects = `
apiVersion: v1
kind: Pod
metadata: {name: sleep-1, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z", labels: {app: sleep, a: b}}
spec: {nodeName: node-2, containers: [{name: sleep, image: curl}, {name: two, image: curl}]}
status:
  phase: Running
  podIP: 10.244.2.3
  containerStatuses:
  - {name: sleep, ready: true, restartCount: 2, image: curl, imageID: "", state: {running: {}}}
  - {name: two, ready: false, restartCount: 1, image: curl, imageID: "", state: {waiting: {reason: CrashLoopBackOff}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {type: LoadBalancer, clusterIP: 10.96.0.7, ports: [{port: 80, nodePort: 30080, protocol: TCP}, {port: 53, protocol: UDP}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {action: DENY}
`

func show(t *testing.T, kind string, opt Options) string {
	t.Helper()
	all, err := kinds.Decode("objects.yaml", []byte(objects))
	if err != nil {
		t.Fatal(err)
	}
	k, ok := kinds.Find(kind)
	if !ok {
		t.Fatalf("no kind %s", kind)
	}
	var of []kinds.Object
	for _, l := range all {
		if kinds.Of(l.Object).Kind == k.Kind {
			of = append(of, l.Object)
		}
	}
	opt.Now = time.Date(2026, 1, 1, 0, 5, 30, 0, time.UTC)
	var b strings.Builder
	if err := Write(&b, k, of, opt); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWrite(t *testing.T) {
	for _, tc := range []struct {
		name, kind string
		opt        Options
		want       string
	}{
		{"pods", "po", Options{}, "NAME      READY   STATUS             RESTARTS   AGE\n" +
			"sleep-1   1/2     CrashLoopBackOff   3          5m30s\n"},
		{
			"pods with labels of all namespaces", "pods",
			Options{Namespaces: true, Labels: true, NoHeaders: true},
			"default   sleep-1   1/2   CrashLoopBackOff   3   5m30s   a=b,app=sleep\n",
		},
		{
			"pods wide", "pod",
			Options{Wide: true, NoHeaders: true},
			"sleep-1   1/2   CrashLoopBackOff   3   5m30s   10.244.2.3   node-2   <none>   <none>\n",
		},
		{"service", "svc", Options{Prefix: true}, "NAME          TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)               AGE\n" +
			"service/web   LoadBalancer   10.96.0.7    <pending>     80:30080/TCP,53/UDP   5m30s\n"},
		{"policy", "authorizationpolicies", Options{}, "NAME   ACTION   AGE\nno     DENY     5m30s\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, show(t, tc.kind, tc.opt)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 9*time.Minute + 5*time.Second: "9m5s", 70 * time.Minute: "70m",
		3*time.Hour + 20*time.Minute: "3h20m", 30 * time.Hour: "30h", 50 * time.Hour: "2d2h", 20 * 24 * time.Hour: "20d", -time.Hour: "0s",
	} {
		if got := Age(now.Add(-d), now); got != want {
			t.Errorf("Age(%v) = %s, want %s", d, got, want)
		}
	}
	if got := Age(time.Time{}, now); got != "<unknown>" {
		t.Errorf("Age of nothing = %s", got)
	}
}

func TestColoursTakeNoColumns(t *testing.T) {
	var b strings.Builder
	if err := AlignColored(&b, [][]string{{"STEP", "RESULT", "TIME"}, {"one", "\x1b[32mheld\x1b[0;22m", "1s"}}); err != nil {
		t.Fatal(err)
	}
	if want := "STEP   RESULT   TIME\none    \x1b[32mheld\x1b[0;22m     1s\n"; b.String() != want {
		t.Errorf("rows\n%q, want\n%q", b.String(), want)
	}
}
