package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"

func TestTablesForKubectl(t *testing.T) {
	e := start(t)
	e.pod("a", "n1", nil)
	e.pod("b", "n2", nil)
	h := headers{"Accept": asTable}
	var got metav1.Table
	read := func(path string) {
		t.Helper()
		got = metav1.Table{}
		code, body := e.do("GET", path, "", h)
		if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 || got.Kind != "Table" || got.APIVersion != "meta.k8s.io/v1" {
			t.Fatal(code, body, err)
		}
	}
	read("/api/v1/namespaces/default/pods?limit=500")
	var names []string
	for _, c := range got.ColumnDefinitions {
		if c.Priority == 0 {
			names = append(names, c.Name)
		}
	}
	if want := []string{"Name", "Ready", "Status", "Restarts", "Age"}; !slices.Equal(names, want) {
		t.Errorf("columns %q, want %q", names, want)
	}
	if len(got.Rows) != 2 || got.Rows[0].Cells[0] != "a" || !strings.Contains(string(got.Rows[0].Object.Raw), `"kind":"PartialObjectMetadata"`) ||
		!strings.Contains(string(got.Rows[0].Object.Raw), `"name":"a"`) || strings.Contains(string(got.Rows[0].Object.Raw), "containers") {
		t.Errorf("rows %+v", got.Rows)
	}
	if got.ResourceVersion == "" {
		t.Error("no version to watch from")
	}
	read("/api/v1/namespaces/default/pods/b?includeObject=Object")
	if len(got.Rows) != 1 || !strings.Contains(string(got.Rows[0].Object.Raw), "containers") {
		t.Errorf("rows %+v", got.Rows)
	}
	if code, _ := e.do("GET", "/api/v1/namespaces/default/pods?includeObject=All", "", h); code != 400 {
		t.Errorf("an unknown word: %d, want 400", code)
	}
	if code, body := e.do("GET", "/api/v1/namespaces/default/pods?watch=true&timeoutSeconds=1", "", h); code != 200 || strings.Count(body, `"kind":"Table"`) != 2 {
		t.Errorf("watch: %d %s", code, body)
	}
	if code, body := e.do("GET", "/api/v1/namespaces/default/pods", "", headers{"Accept": "application/json;as=Table;v=v2;g=meta.k8s.io, application/json"}); code != 200 || !strings.Contains(body, `"kind":"PodList"`) {
		t.Errorf("another table: %d %s", code, body)
	}
}

func TestListsComeInPages(t *testing.T) {
	e := start(t)
	for i := range 5 {
		e.pod(fmt.Sprintf("p%d", i), "n1", nil)
	}
	var seen []string
	next, left := "", int64(-1)
	for range 10 {
		code, body := e.do("GET", "/api/v1/pods?limit=2&continue="+url.QueryEscape(next), "", nil)
		var list corev1.PodList
		if err := json.Unmarshal([]byte(body), &list); err != nil || code != 200 {
			t.Fatal(code, body, err)
		}
		for _, p := range list.Items {
			seen = append(seen, p.Name)
		}
		if list.RemainingItemCount != nil {
			left = *list.RemainingItemCount
		}
		if next = list.Continue; next == "" {
			break
		}
		if len(seen) == 2 {
			// What a page showed does not come again, whatever goes meanwhile.
			if err := e.store.Delete(store.KindFor[*corev1.Pod](), "default", "p1", store.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := []string{"p0", "p1", "p2", "p3", "p4"}; !slices.Equal(seen, want) || left != 1 {
		t.Errorf("pages show %v, %d left at last; want %v, 1", seen, left, want)
	}
	for _, q := range []string{"limit=-1", "limit=x", "continue=!", "continue=bm90IEpTT04"} {
		if code, _ := e.do("GET", "/api/v1/pods?"+q, "", nil); code != 400 {
			t.Errorf("%s: %d, want 400", q, code)
		}
	}
}

func TestDeleteOfMany(t *testing.T) {
	e := start(t)
	for _, name := range []string{"a", "b", "c"} {
		labels := map[string]string{"of": "many"}
		if name == "c" {
			labels = nil
		}
		if _, err := e.store.Create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: labels}}); err != nil {
			t.Fatal(err)
		}
	}
	if code, body := e.do("DELETE", "/api/v1/namespaces/default/configmaps?labelSelector=of%3Dmany", "", nil); code != 200 {
		t.Fatal(code, body)
	}
	var left []string
	for _, c := range store.List[*corev1.ConfigMap](e.store, "default") {
		if len(c.Name) == 1 {
			left = append(left, c.Name)
		}
	}
	if !slices.Equal(left, []string{"c"}) {
		t.Errorf("left: %v", left)
	}
	if code, _ := e.do("DELETE", "/api/v1/configmaps", "", nil); code != 405 {
		t.Errorf("of all namespaces: %d, want 405", code)
	}
}

func FuzzPage(f *testing.F) {
	f.Add("10", "eyJucyI6ImEiLCJuYW1lIjoiYiJ9")
	f.Fuzz(func(t *testing.T, limit, token string) {
		p, err := readPage(limit, token)
		if err != nil {
			return
		}
		p.cut(nil, 1)
	})
}
