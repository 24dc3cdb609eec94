package api

import (
	"encoding/json"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

// protobuf is an object as Kubernetes' clients send it.
func protobuf(t testing.TB, api, kind string, o interface{ Marshal() ([]byte, error) }) string {
	t.Helper()
	raw, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	data, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: api, Kind: kind}, Raw: raw}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return "k8s\x00" + string(data)
}

func TestObjectsSentAsProtobuf(t *testing.T) {
	e := start(t)
	h := headers{"Content-Type": protobufType}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"a": "b"}}
	if code, body := e.do("POST", "/api/v1/namespaces/default/configmaps", protobuf(t, "v1", "ConfigMap", cm), h); code != 201 {
		t.Fatal(code, body)
	}
	got, err := store.Get[*corev1.ConfigMap](e.store, "default", "c")
	if err != nil || got.Data["a"] != "b" {
		t.Errorf("%+v, %v", got, err)
	}
	for name, body := range map[string]string{
		"no magic": "hello", "cut": protobuf(t, "v1", "ConfigMap", cm)[:20], "unknown kind": protobuf(t, "v9", "ConfigMap", cm),
	} {
		if code, answer := e.do("POST", "/api/v1/namespaces/default/configmaps", body, h); code != 400 {
			t.Errorf("%s: %d %s, want 400", name, code, answer)
		}
	}
}

func TestOptionsSentAsProtobuf(t *testing.T) {
	e := start(t)
	e.pod("a", "n1", nil)
	grace := int64(0)
	uid := types.UID("another")
	h := headers{"Content-Type": protobufType}
	const path = "/api/v1/namespaces/default/pods/a"
	options := protobuf(t, "v1", "DeleteOptions", &metav1.DeleteOptions{GracePeriodSeconds: &grace, Preconditions: &metav1.Preconditions{UID: &uid}})
	if code, body := e.do("DELETE", path, options, h); code != 409 {
		t.Errorf("of another pod: %d %s", code, body)
	}
	for _, c := range []struct {
		body string
		h    headers
		want int
	}{
		{protobuf(t, "v1", "DeleteOptions", &metav1.DeleteOptions{GracePeriodSeconds: &grace, DryRun: []string{"All"}}), h, 200},
		{`{"gracePeriodSeconds":0,"dryRun":["All"]}`, nil, 200},
		{`{"gracePeriodSeconds":0,"dryRun":["Some"]}`, nil, 400},
	} {
		if code, body := e.do("DELETE", path, c.body, c.h); code != c.want {
			t.Errorf("a trial: %d %s, want %d", code, body, c.want)
		}
		if _, err := store.Get[*corev1.Pod](e.store, "default", "a"); err != nil {
			t.Fatalf("a trial is taken for real: %v", err)
		}
	}
	if code, body := e.do("DELETE", path, protobuf(t, "v1", "DeleteOptions", &metav1.DeleteOptions{GracePeriodSeconds: &grace}), h); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := e.do("DELETE", path, "nonsense", h); code != 400 {
		t.Errorf("nonsense: %d, want 400", code)
	}
}

func TestWordsForSeveralKinds(t *testing.T) {
	e := start(t)
	if _, body := e.do("GET", "/api/v1", "", nil); strings.Count(body, `"categories":["all"]`) != 2 {
		t.Errorf("pods and services are not all: %s", body)
	}
}

func FuzzOptions(f *testing.F) {
	f.Add([]byte(protobuf(f, "v1", "DeleteOptions", &metav1.DeleteOptions{DryRun: []string{"All"}})))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_ = wrapped(data, &metav1.DeleteOptions{}) // it may fail, and must not panic
	})
}

func FuzzProtobuf(f *testing.F) {
	f.Add([]byte(protobuf(f, "v1", "ConfigMap", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}})))
	f.Add([]byte(protobuf(f, "v1", "Pod", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x"}}}})))
	f.Fuzz(func(t *testing.T, data []byte) {
		if out, err := fromProtobuf(data); err == nil && !json.Valid(out) {
			t.Errorf("not JSON: %s", out)
		}
	})
}

func TestScaleSubresource(t *testing.T) {
	e := start(t)
	labels := map[string]string{"app": "web"}
	if _, err := e.store.Create(&appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	const path = "/apis/apps/v1/namespaces/default/deployments/web/scale"
	replicas := func() int32 {
		t.Helper()
		d, err := store.Get[*appsv1.Deployment](e.store, "default", "web")
		if err != nil {
			t.Fatal(err)
		}
		return *d.Spec.Replicas
	}
	code, body := e.do("GET", path, "", nil)
	if code != 200 || !strings.Contains(body, `"kind":"Scale"`) || !strings.Contains(body, `"replicas":1`) || !strings.Contains(body, `"selector":"app=web"`) {
		t.Fatal(code, body)
	}
	if code, answer := e.do("PATCH", path, `{"spec":{"replicas":3}}`, headers{"Content-Type": "application/merge-patch+json"}); code != 200 || replicas() != 3 {
		t.Errorf("patch: %d %s, replicas %d", code, answer, replicas())
	}
	if code, answer := e.do("PUT", path, body, nil); code != 409 || replicas() != 3 {
		t.Errorf("update by an old resourceVersion: %d %s, replicas %d", code, answer, replicas())
	}
	if code, answer := e.do("PUT", path, `{"spec":{}}`, nil); code != 200 || replicas() != 0 {
		t.Errorf("update to none: %d %s, replicas %d", code, answer, replicas())
	}
	if code, answer := e.do("PATCH", path, `{"spec":{"replicas":-1}}`, headers{"Content-Type": "application/merge-patch+json"}); code != 422 || replicas() != 0 {
		t.Errorf("negative: %d %s, replicas %d", code, answer, replicas())
	}
	if code, _ := e.do("GET", "/apis/apps/v1/namespaces/default/daemonsets/web/scale", "", nil); code != 404 {
		t.Errorf("the scale of a DaemonSet: %d, want 404", code)
	}
}

func TestOpenAPISaysThatFieldsAreCheckedHere(t *testing.T) {
	e := start(t)
	code, body := e.do("GET", "/openapi/v3", "", nil)
	var index openAPIIndex
	if err := json.Unmarshal([]byte(body), &index); err != nil || code != 200 {
		t.Fatal(code, err)
	}
	for _, group := range []string{"api/v1", "apis/apps/v1", "apis/networking.istio.io/v1beta1"} {
		if code, body := e.do("GET", index.Paths[group].URL, "", nil); code != 200 || !strings.Contains(body, "fieldValidation") {
			t.Errorf("%s: %d %s", group, code, body)
		}
	}
	if code, _ := e.do("GET", "/openapi/v3/apis/none/v1", "", nil); code != 404 {
		t.Errorf("a group that is not there: %d, want 404", code)
	}
}

func TestDryRunKeepsNothing(t *testing.T) {
	e := start(t)
	pod := e.pod("a", "n1", nil)
	before := e.store.Revision()
	const pods = "/api/v1/namespaces/default/pods"
	cm := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}`
	merge, apply := headers{"Content-Type": "application/merge-patch+json"}, headers{"Content-Type": "application/apply-patch+yaml"}
	for _, c := range []struct {
		method, path, body string
		h                  headers
		want               int
		in                 string
	}{
		{"POST", "/api/v1/namespaces/default/configmaps", cm, nil, 201, `"uid"`},
		{"POST", pods, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"x"}]}}`, nil, 409, ""},
		{"PATCH", pods + "/a", `{"metadata":{"labels":{"k":"v"}}}`, merge, 200, `"k":"v"`},
		{"PATCH", pods + "/a", `{"metadata":{"labls":{}}}`, merge, 422, ""},
		{"PATCH", "/api/v1/namespaces/default/configmaps/c?fieldManager=kubectl", cm, apply, 201, ""},
		{"PATCH", "/api/v1/namespaces/default/configmaps/c?fieldManager=other", cm, apply, 201, ""},
		{"DELETE", pods + "/a?gracePeriodSeconds=0", "", nil, 200, ""},
	} {
		sep := "?"
		if strings.Contains(c.path, "?") {
			sep = "&"
		}
		if code, body := e.do(c.method, c.path+sep+"dryRun=All", c.body, c.h); code != c.want || !strings.Contains(body, c.in) {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, code, body, c.want)
		}
	}
	if code, body := e.do("POST", "/ambit/v1/apply?dryRun=true", cm, nil); code != 200 || !strings.Contains(body, "created") {
		t.Errorf("apply: %d %s", code, body)
	}
	if code, _ := e.do("DELETE", pods+"/a?dryRun=yes", "", nil); code != 400 {
		t.Errorf("an unknown word for a trial: %d, want 400", code)
	}
	now, err := store.Get[*corev1.Pod](e.store, "default", "a")
	if err != nil || now.ResourceVersion != pod.ResourceVersion || e.store.Revision() != before {
		t.Errorf("something was kept: %v, %v, revision %d after %d", now, err, e.store.Revision(), before)
	}
}

func TestOtherWritersAddToWhatIsThere(t *testing.T) {
	e := start(t)
	const path = "/api/v1/namespaces/default/services/web?fieldManager="
	h := headers{"Content-Type": "application/apply-patch+yaml"}
	head := "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
	if code, body := e.do("PATCH", path+"kubectl", head+"spec: {ports: [{port: 80}]}\n", h); code != 201 {
		t.Fatal(code, body)
	}
	if code, body := e.do("PATCH", path+"other", "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {k: v}}\n", h); code != 200 {
		t.Fatal(code, body)
	}
	got, err := store.Get[*corev1.Service](e.store, "default", "web")
	if err != nil || len(got.Spec.Ports) != 1 || got.Labels["k"] != "v" {
		t.Errorf("%+v, %v", got, err)
	}
}
