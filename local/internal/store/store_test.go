package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const web = `apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, name: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web
        ports: [{containerPort: 8080}]
`

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(Config{Objects: filepath.Join(dir, "objects"), Status: filepath.Join(dir, "status")})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Apply(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs the store until the test ends.
func run(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run() = %v", err)
		}
	})
}

// await blocks until ok, looking again at each change of the store and each refusal.
func await(t *testing.T, s *Store, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond) // a refusal is no change of an object
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s; refused: %v", what, s.Refused())
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := WriteFile(path, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestApplyKeepsWhatTheServerSet(t *testing.T) {
	s := open(t, t.TempDir())
	files := []File{{"web.yaml", []byte(web)}}
	if _, err := s.ApplyFiles(files, "default", false); err != nil {
		t.Fatal(err)
	}
	_, err := Update(s, "default", "web", func(svc *corev1.Service) error {
		svc.Spec.ClusterIP = "10.96.0.7"
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.89.0.10"}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before, err := Get[*corev1.Service](s, "default", "web")
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.ApplyFiles(files, "default", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range again {
		if a.Action != Unchanged {
			t.Errorf("applying %s a second time: %s, want unchanged", a.Object.GetName(), a.Action)
		}
	}
	changed := strings.Replace(web, "{port: 80, name: http}", "{port: 81, name: http}", 1)
	if _, err := s.ApplyFiles([]File{{"web.yaml", []byte(changed)}}, "default", false); err != nil {
		t.Fatal(err)
	}
	after, err := Get[*corev1.Service](s, "default", "web")
	if err != nil {
		t.Fatal(err)
	}
	if after.Spec.ClusterIP != "10.96.0.7" || after.UID != before.UID || len(after.Status.LoadBalancer.Ingress) != 1 || len(after.Spec.Ports) != 1 || after.Spec.Ports[0].Port != 81 {
		t.Errorf("after apply: clusterIP %q uid kept %t status %v ports %v", after.Spec.ClusterIP, after.UID == before.UID, after.Status, after.Spec.Ports)
	}
	if after.Generation != 0 && after.Generation != before.Generation+1 {
		t.Errorf("generation %d after %d", after.Generation, before.Generation)
	}
}

func TestOneBrokenObjectStopsTheWholeSet(t *testing.T) {
	for name, broken := range map[string]struct{ text, want string }{
		"unknown field":    {"apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec:\n  prots: []\n", "b.yaml:5"},
		"unknown kind":     {"apiVersion: v1\nkind: Servise\nmetadata: {name: b}\n", "b.yaml:2"},
		"invalid":          {"\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 0}]}\n", "b.yaml:2"},
		"other's selector": {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: b}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {spec: {containers: [{name: c}]}}\n", "b.yaml:1"},
		"no namespace":     {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: nowhere}\n", "nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			_, err := s.ApplyFiles([]File{{"web.yaml", []byte(web)}, {"b.yaml", []byte(broken.text)}}, "default", false)
			if err == nil || !strings.Contains(err.Error(), broken.want) {
				t.Fatalf("error %v, want one naming %s", err, broken.want)
			}
			if list := List[*corev1.Service](s, ""); len(list) != 0 {
				t.Errorf("%d services were applied all the same", len(list))
			}
		})
	}
}

func TestObjectsOutliveTheStore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.ApplyFiles([]File{{"web.yaml", []byte(web)}}, "default", false); err != nil {
		t.Fatal(err)
	}
	before, _ := Get[*appsv1.Deployment](s, "default", "web")
	info, err := os.Stat(filepath.Join(dir, "objects/default/deployments.apps/web.yaml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("file of the deployment: %v, %v", info, err)
	}
	s = open(t, dir)
	after, err := Get[*appsv1.Deployment](s, "default", "web")
	if err != nil || after.UID != before.UID || after.ResourceVersion != before.ResourceVersion {
		t.Fatalf("after reopening: %v, %v; want uid %s at %s", after, err, before.UID, before.ResourceVersion)
	}
}

func TestDroppedFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	run(t, s)
	path := filepath.Join(dir, "objects", "mine", "web.yaml")
	write(t, path, web)
	await(t, s, "dropped file applied", func() bool { _, err := Get[*corev1.Service](s, "default", "web"); return err == nil })

	write(t, path, strings.Replace(web, "port: 80", "prt: 80", 1))
	await(t, s, "broken file refused", func() bool { return s.Refused()[path] != nil })
	if why := s.Refused()[path].Error(); !strings.Contains(why, "web.yaml:6") {
		t.Errorf("refusal %q does not name the line", why)
	}
	svc, err := Get[*corev1.Service](s, "default", "web")
	if err != nil || svc.Spec.Ports[0].Port != 80 {
		t.Fatalf("last good content is not in force: %v, %v", svc, err)
	}

	write(t, path, strings.Replace(web, "port: 80", "port: 82", 1))
	await(t, s, "mended file in force", func() bool {
		svc, err := Get[*corev1.Service](s, "default", "web")
		return err == nil && svc.Spec.Ports[0].Port == 82 && len(s.Refused()) == 0
	})

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	await(t, s, "objects of a removed file gone", func() bool {
		return len(List[*corev1.Service](s, "")) == 0 && len(List[*appsv1.Deployment](s, "")) == 0
	})
}

func TestOwnFileChangedByHand(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	run(t, s)
	if _, err := s.ApplyFiles([]File{{"web.yaml", []byte(web)}}, "default", false); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "objects/default/services/web.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, strings.Replace(string(data), "port: 80\n", "port: eighty\n", 1))
	await(t, s, "broken own file refused", func() bool { return s.Refused()[path] != nil })
	// A write meanwhile must not destroy what the person is at work on.
	if _, err := Update(s, "default", "web", func(svc *corev1.Service) error { svc.Spec.ClusterIP = "10.96.0.9"; return nil }); err != nil {
		t.Fatal(err)
	}
	if now, _ := os.ReadFile(path); !strings.Contains(string(now), "eighty") {
		t.Fatal("the broken file was overwritten")
	}
	write(t, path, strings.Replace(string(data), "port: 80\n", "port: 83\n", 1))
	await(t, s, "mended own file in force, server's fields kept", func() bool {
		svc, err := Get[*corev1.Service](s, "default", "web")
		return err == nil && svc.Spec.Ports[0].Port == 83 && svc.Spec.ClusterIP == "10.96.0.9"
	})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	await(t, s, "object of a removed file gone", func() bool { return len(List[*corev1.Service](s, "")) == 0 })
}

func TestFileRemovedWhileNothingRan(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "objects", "web.yaml")
	write(t, path, web)
	s := open(t, dir)
	if len(List[*corev1.Service](s, "")) != 1 {
		t.Fatalf("not loaded: %v", s.Refused())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if s = open(t, dir); len(List[*corev1.Service](s, "")) != 0 {
		t.Error("what the removed file brought is still there")
	}
}

func TestStatusOfTheControlPlaneIsShown(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	run(t, s)
	if _, err := s.ApplyFiles([]File{{"web.yaml", []byte(web)}}, "default", false); err != nil {
		t.Fatal(err)
	}
	if _, err := Update(s, "default", "web", func(svc *corev1.Service) error {
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.89.0.10"}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "status/default/services/web.yaml")
	write(t, path, "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default}\nstatus:\n  conditions:\n  - {type: istio.io/WaypointBound, status: 'True', reason: Bound, message: '', lastTransitionTime: null}\n")
	await(t, s, "status shown beside the store's own", func() bool {
		svc, _ := Get[*corev1.Service](s, "default", "web")
		return len(svc.Status.Conditions) == 1 && len(svc.Status.LoadBalancer.Ingress) == 1
	})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	await(t, s, "status gone with its file", func() bool {
		svc, _ := Get[*corev1.Service](s, "default", "web")
		return len(svc.Status.Conditions) == 0 && len(svc.Status.LoadBalancer.Ingress) == 1
	})
}

func TestPodOnANodeIsFinalisedByItsKubelet(t *testing.T) {
	s := open(t, t.TempDir())
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}}}}
	if _, err := s.Create(pod); err != nil {
		t.Fatal(err)
	}
	k := KindFor[*corev1.Pod]()
	if err := s.Delete(k, "default", "p", DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	marked, err := Get[*corev1.Pod](s, "default", "p")
	if err != nil || marked.DeletionTimestamp == nil || *marked.DeletionGracePeriodSeconds != 30 {
		t.Fatalf("after deletion: %v, %v", marked, err)
	}
	if err := s.Delete(k, "default", "p", DeleteOptions{Grace: new(time.Duration(0)), UID: "another"}); !errors.Is(err, ErrConflict) {
		t.Errorf("deleting another pod of that name: %v", err)
	}
	if err := s.Delete(k, "default", "p", DeleteOptions{Grace: new(time.Duration(0)), UID: marked.UID}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(k, "default", "p"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after finalising: %v", err)
	}
}

func TestHistory(t *testing.T) {
	s := open(t, t.TempDir())
	k := KindFor[*corev1.ConfigMap]()
	start := s.Revision()
	cm := func(text string) kinds.Object {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}, Data: map[string]string{"a": text}}
	}
	if _, err := s.Create(cm("0")); err != nil {
		t.Fatal(err)
	}
	set := func(text string) {
		t.Helper()
		if _, err := Update(s, "default", "c", func(c *corev1.ConfigMap) error { c.Data["a"] = text; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	set("1")
	set("1") // changes nothing
	if err := s.Delete(k, "default", "c", DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	events, upTo, err := s.Since(k, start)
	if err != nil || upTo != s.Revision() {
		t.Fatal(upTo, err)
	}
	var types []EventType
	for _, e := range events {
		types = append(types, e.Type)
	}
	if len(types) != 3 || types[0] != Added || types[1] != Modified || types[2] != Deleted {
		t.Errorf("events %v, want added, modified, deleted", types)
	}
	if _, err := s.Create(cm("x")); err != nil {
		t.Fatal(err)
	}
	for i := range historyLength {
		set(strings.Repeat("y", i%7+1))
	}
	if _, _, err := s.Since(k, start); !errors.Is(err, ErrGone) {
		t.Errorf("Since(%d) = %v, want gone", start, err)
	}
	if _, _, err := s.Since(k, s.Revision()+5); !errors.Is(err, ErrGone) {
		t.Errorf("Since(a revision to come) = %v, want gone", err)
	}
}

func TestSubscribersAreWokenForTheirKinds(t *testing.T) {
	s := open(t, t.TempDir())
	wake, stop := s.Subscribe(KindFor[*corev1.Service]())
	defer stop()
	<-wake // the first token
	if _, err := s.Create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-wake:
		t.Error("woken for another kind")
	default:
	}
	if _, err := s.ApplyFiles([]File{{"web.yaml", []byte(web)}}, "default", false); err != nil {
		t.Fatal(err)
	}
	select {
	case <-wake:
	default:
		t.Error("not woken for its kind")
	}
}
