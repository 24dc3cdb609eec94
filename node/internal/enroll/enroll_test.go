package enroll_test

import (
	"testing"

	"github.com/ambit-mesh/ambit/node/internal/enroll"
	"github.com/ambit-mesh/ambit/node/internal/objects"
)

type words = map[string]string

func mode(v string) words { return words{"istio.io/dataplane-mode": v} }

func TestDecide(t *testing.T) {
	sidecar := words{"sidecar.istio.io/status": "{}"}
	for _, c := range []struct {
		name      string
		pod       objects.Pod
		ns        words
		namespace string
		in        bool
		why       string
	}{
		{name: "nobody said anything", why: "no label istio.io/dataplane-mode=ambient on pod or namespace"},
		{name: "the namespace is", ns: mode("ambient"), in: true, why: "namespace label istio.io/dataplane-mode=ambient"},
		{name: "the pod is", pod: objects.Pod{Labels: mode("ambient")}, in: true, why: "pod label istio.io/dataplane-mode=ambient"},
		{name: "the pod is though its namespace says none", pod: objects.Pod{Labels: mode("ambient")}, ns: mode("none"), in: true, why: "pod label istio.io/dataplane-mode=ambient"},
		{name: "the pod says none in a namespace that is", pod: objects.Pod{Labels: mode("none")}, ns: mode("ambient"), why: "pod label istio.io/dataplane-mode=none"},
		{name: "an unknown word of the pod leaves it to the namespace", pod: objects.Pod{Labels: mode("Ambient")}, ns: mode("ambient"), in: true, why: "namespace label istio.io/dataplane-mode=ambient"},
		{name: "an unknown word of the namespace is none", ns: mode("sidecar"), why: "no label istio.io/dataplane-mode=ambient on pod or namespace"},
		{name: "an excluded namespace comes first", namespace: "kube-system", pod: objects.Pod{Labels: mode("ambient"), HostNetwork: true}, ns: mode("ambient"), why: "namespace kube-system is excluded"},
		{name: "the node's network never", pod: objects.Pod{Labels: mode("ambient"), HostNetwork: true, Annotations: sidecar}, ns: mode("ambient"), why: "pod uses the node's network"},
		{name: "a sidecar never, even an empty status", pod: objects.Pod{Labels: mode("ambient"), Annotations: words{"sidecar.istio.io/status": ""}}, ns: mode("ambient"), why: "pod has a sidecar"},
		{name: "a pod that has ended", pod: objects.Pod{Labels: mode("ambient"), Phase: "Succeeded"}, ns: mode("ambient"), why: "pod has ended: Succeeded"},
		{name: "a pod that has failed", pod: objects.Pod{Phase: "Failed"}, ns: mode("ambient"), why: "pod has ended: Failed"},
		{name: "a pod that does not run yet", pod: objects.Pod{Phase: "Pending"}, ns: mode("ambient"), in: true, why: "namespace label istio.io/dataplane-mode=ambient"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.pod.Namespace = c.namespace
			if c.namespace == "" {
				c.pod.Namespace = "default"
			}
			got := enroll.Rules{Excluded: []string{"kube-system", ""}}.Decide(c.pod, objects.Namespace{Name: c.pod.Namespace, Labels: c.ns})
			if want := (enroll.Verdict{In: c.in, Why: c.why}); got != want {
				t.Errorf("Decide = %+v, want %+v", got, want)
			}
		})
	}
}

func TestSelectors(t *testing.T) {
	istio := `[{"podSelector":{"matchLabels":{"istio.io/dataplane-mode":"ambient"}}},
		{"podSelector":{"matchExpressions":[{"key":"istio.io/dataplane-mode","operator":"NotIn","values":["none"]}]},
		 "namespaceSelector":{"matchLabels":{"istio.io/dataplane-mode":"ambient"}}}]`
	for _, c := range []struct {
		name, selectors string
		pod, ns         words
		in              bool
	}{
		{name: "nobody", selectors: `[]`, pod: mode("ambient"), ns: mode("ambient")},
		{name: "everybody", selectors: `[{}]`, in: true},
		{name: "Istio's own: pod", selectors: istio, pod: mode("ambient"), ns: mode("none"), in: true},
		{name: "Istio's own: namespace", selectors: istio, ns: mode("ambient"), in: true},
		{name: "Istio's own: not in a namespace that is", selectors: istio, pod: mode("none"), ns: mode("ambient")},
		{name: "Istio's own: no words", selectors: istio},
		{name: "In wants the label", selectors: `[{"podSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["","b"]}]}}]`},
		{name: "In", selectors: `[{"podSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["","b"]}]}}]`, pod: words{"a": ""}, in: true},
		{name: "Exists", selectors: `[{"namespaceSelector":{"matchExpressions":[{"key":"a","operator":"Exists"}]}}]`, ns: words{"a": "x"}, in: true},
		{name: "DoesNotExist", selectors: `[{"namespaceSelector":{"matchExpressions":[{"key":"a","operator":"DoesNotExist"}]}}]`, ns: words{"a": "x"}},
		{name: "every line must agree", selectors: `[{"podSelector":{"matchLabels":{"a":"1","b":"2"}}}]`, pod: words{"a": "1"}},
		{name: "an empty value is not a missing label", selectors: `[{"podSelector":{"matchLabels":{"a":""}}}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			all, err := enroll.ParseSelectors([]byte(c.selectors))
			if err != nil {
				t.Fatal(err)
			}
			r := enroll.Rules{Selectors: all}
			pod := objects.Pod{Key: objects.Key{Namespace: "a"}, Labels: c.pod}
			if got := r.Decide(pod, objects.Namespace{Name: "a", Labels: c.ns}); got.In != c.in || got.Why == "" {
				t.Errorf("Decide = %+v, want %v", got, c.in)
			}
			pod.HostNetwork = true
			if got := r.Decide(pod, objects.Namespace{Name: "a", Labels: c.ns}); got.In {
				t.Error("a selector takes a pod of the node's network into the mesh")
			}
		})
	}
	for _, bad := range []string{
		``, `{}`, `[{"pod":{}}]`, `[{}] x`, `[{"podSelector":{"matchExpressions":[{"key":"a","operator":"in","values":["b"]}]}}]`,
		`[{"podSelector":{"matchExpressions":[{"key":"a","operator":"In"}]}}]`, `[{"namespaceSelector":{"matchExpressions":[{"operator":"Exists"}]}}]`,
		`[{"namespaceSelector":{"matchExpressions":[{"key":"a","operator":"Exists","values":["x"]}]}}]`,
	} {
		if all, err := enroll.ParseSelectors([]byte(bad)); err == nil {
			t.Errorf("ParseSelectors(%s) = %v", bad, all)
		}
	}
}

func FuzzSelectors(f *testing.F) {
	f.Add([]byte(`[{"podSelector":{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"a","operator":"NotIn","values":["c"]}]}}]`), "b")
	f.Fuzz(func(t *testing.T, text []byte, value string) {
		all, err := enroll.ParseSelectors(text)
		if err == nil && all == nil {
			t.Errorf("%q became Istio's own selectors", text)
		}
		enroll.Rules{Selectors: all}.Decide(objects.Pod{Labels: words{"a": value}}, objects.Namespace{})
	})
}
