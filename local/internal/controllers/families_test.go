package controllers

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

// A service has an address of each of its families, and endpoints of those families only.
func TestDualStackServices(t *testing.T) {
	s, err := store.Open(store.Config{
		Objects: filepath.Join(t.TempDir(), "objects"), Families: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{T: t, store: s, c: New(Config{
		Store: s, Services: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")}, Log: slog.New(slog.DiscardHandler),
	})}
	c.apply(`
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Service
metadata: {name: both, namespace: default}
spec: {ipFamilyPolicy: RequireDualStack, selector: {app: a}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: six, namespace: default}
spec: {ipFamilies: [IPv6], selector: {app: a}, ports: [{port: 80}]}
`)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", Labels: map[string]string{"app": "a"}}}
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	pod.Status.PodIPs = []corev1.PodIP{{IP: "10.244.1.2"}, {IP: "fd00:10:244:1::2"}}
	if _, err := s.Create(pod); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := c.c.Reconcile(); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string][]string{}
	for _, svc := range store.List[*corev1.Service](s, "") {
		got[svc.Name] = append([]string{svc.Spec.ClusterIP}, svc.Spec.ClusterIPs...)
	}
	for _, e := range store.List[*discoveryv1.EndpointSlice](s, "") {
		name := e.Labels[discoveryv1.LabelServiceName]
		for _, ep := range e.Endpoints {
			got[name] = append(got[name], ep.Addresses...)
		}
	}
	for _, all := range got {
		slices.Sort(all)
	}
	want := map[string][]string{
		"both": {"10.244.1.2", "10.96.1.0", "10.96.1.0", "fd00:10:244:1::2", "fd00:10:96::100"},
		"six":  {"fd00:10:244:1::2", "fd00:10:96::101", "fd00:10:96::101"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
