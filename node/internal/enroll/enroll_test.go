package enroll_test

import (
	"testing"

	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/enroll"
	"github.com/ambit-mesh/ambit/node/internal/podwatch"
)

type words = map[string]string

func mode(v string) words { return words{"istio.io/dataplane-mode": v} }

func TestDecide(t *testing.T) {
	sidecar := words{"sidecar.istio.io/status": "{}"}
	for _, c := range []struct {
		name      string
		pod       podwatch.Pod
		ns        words
		namespace string
		in        bool
		why       string
	}{
		{name: "nobody said anything", why: "no label istio.io/dataplane-mode=ambient on pod or namespace"},
		{name: "the namespace is", ns: mode("ambient"), in: true, why: "namespace label istio.io/dataplane-mode=ambient"},
		{name: "the pod is", pod: podwatch.Pod{Labels: mode("ambient")}, in: true, why: "pod label istio.io/dataplane-mode=ambient"},
		{name: "the pod is though its namespace says none", pod: podwatch.Pod{Labels: mode("ambient")}, ns: mode("none"), in: true, why: "pod label istio.io/dataplane-mode=ambient"},
		{name: "the pod says none in a namespace that is", pod: podwatch.Pod{Labels: mode("none")}, ns: mode("ambient"), why: "pod label istio.io/dataplane-mode=none"},
		{name: "an unknown word of the pod leaves it to the namespace", pod: podwatch.Pod{Labels: mode("Ambient")}, ns: mode("ambient"), in: true, why: "namespace label istio.io/dataplane-mode=ambient"},
		{name: "an unknown word of the namespace is none", ns: mode("sidecar"), why: "no label istio.io/dataplane-mode=ambient on pod or namespace"},
		{name: "an excluded namespace comes first", namespace: "kube-system", pod: podwatch.Pod{Labels: mode("ambient"), HostNetwork: true}, ns: mode("ambient"), why: "namespace kube-system is excluded"},
		{name: "the node's network never", pod: podwatch.Pod{Labels: mode("ambient"), HostNetwork: true, Annotations: sidecar}, ns: mode("ambient"), why: "pod uses the node's network"},
		{name: "a sidecar never, even an empty status", pod: podwatch.Pod{Labels: mode("ambient"), Annotations: words{"sidecar.istio.io/status": ""}}, ns: mode("ambient"), why: "pod has a sidecar"},
		{name: "a pod that has ended", pod: podwatch.Pod{Labels: mode("ambient"), Phase: "Succeeded"}, ns: mode("ambient"), why: "pod has ended: Succeeded"},
		{name: "a pod that has failed", pod: podwatch.Pod{Phase: "Failed"}, ns: mode("ambient"), why: "pod has ended: Failed"},
		{name: "a pod that does not run yet", pod: podwatch.Pod{Phase: "Pending"}, ns: mode("ambient"), in: true, why: "namespace label istio.io/dataplane-mode=ambient"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.pod.Namespace = c.namespace
			if c.namespace == "" {
				c.pod.Namespace = "default"
			}
			got := enroll.Decide(c.pod, podwatch.Namespace{Name: c.pod.Namespace, Labels: c.ns}, []string{"kube-system", ""})
			if want := (enroll.Verdict{In: c.in, Why: c.why}); got != want {
				t.Errorf("Decide = %+v, want %+v", got, want)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	const bypass, dns = "ambient.istio.io/bypass-inbound-capture", "ambient.istio.io/dns-capture"
	for _, c := range []struct {
		name  string
		words words
		dns   bool
		want  capture.Pod
	}{
		{name: "nothing said"},
		{name: "DNS for all", dns: true, want: capture.Pod{DNS: true}},
		{name: "DNS for all but this", dns: true, words: words{dns: "false"}},
		{name: "DNS for this", words: words{dns: "true"}, want: capture.Pod{DNS: true}},
		{name: "bypass", words: words{bypass: "true"}, want: capture.Pod{BypassInbound: true}},
		{name: "no bypass", words: words{bypass: "false"}},
		{name: "words that are no boolean change nothing", dns: true, words: words{bypass: "yes please", dns: "off"}, want: capture.Pod{DNS: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, v6 := range []bool{false, true} {
				c.want.V6 = v6
				if got := enroll.Options(podwatch.Pod{Annotations: c.words}, c.dns, v6); got != c.want {
					t.Errorf("Options = %+v, want %+v", got, c.want)
				}
			}
		})
	}
}
