package kube_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/control/source/kube"
	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
)

// patience is how long something may take that must happen.
const patience = 90 * time.Second

// follow runs a source of the server until the test ends or stop is called.
func follow(t testing.TB, rc *rest.Config) (s *kube.Source, stop func()) {
	t.Helper()
	s, err := kube.Open(kube.Config{REST: rest.CopyConfig(rc), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
		}
	}
	t.Cleanup(stop)
	return s, stop
}

func synced(t testing.TB, s *kube.Source) {
	t.Helper()
	select {
	case <-s.Store().Objects.Pods.Synced():
	case <-time.After(patience):
		t.Fatalf("not synced; problems %+v", s.Problems())
	}
}

// eventually waits for a condition that something must bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after %s: %s", patience, what)
		}
	}
}

func define(s *kubeapi.Server, names ...string) {
	for _, k := range kinds.All() {
		for _, n := range names {
			if k.Kind+"."+k.Group == n {
				s.Define(k.Group, k.Kind, k.Plural, k.Namespaced, k.Versions...)
			}
		}
	}
}

const policyKind = "AuthorizationPolicy.security.istio.io"

func policy(name, spec string) string {
	return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: default}\nspec: %s\n", name, spec)
}

func pod(name, ip string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: default, labels: {app: web}, annotations: {a: b}}\nspec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, image: i, env: [{name: A, value: b}], ports: [{name: http, containerPort: 80}]}]}\nstatus: {phase: Running, podIP: %s, podIPs: [{ip: %s}], conditions: [{type: Ready, status: 'True'}]}\n", name, ip, ip)
}

const basics = `
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: outside-1, namespace: default, labels: {kubernetes.io/service-name: outside}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.1]}]
ports: [{name: http, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.7], targetRef: {kind: Pod, name: web-1}}]
ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Secret
metadata: {name: site, namespace: default}
type: kubernetes.io/tls
data: {tls.crt: YQ==, tls.key: Yg==}
---
apiVersion: v1
kind: Secret
metadata: {name: password, namespace: default}
data: {password: c2VjcmV0}
`

// What the API server has is in the store before anybody is served, of what nobody reads as little as can be; what is
// defined later is picked up, and what is not understood does not take the place of what was.
func TestObjects(t *testing.T) {
	api := kubeapi.Start(t)
	define(api, policyKind)
	api.Apply(basics + "---\n" + pod("web-1", "10.0.0.7") + "---\n" + policy("good", "{action: DENY, rules: [{from: [{source: {namespaces: [evil]}}]}]}"))
	s, _ := follow(t, api.Config)
	synced(t, s)
	o := s.Store().Objects
	p, ok := o.Pods.Get("default/web-1")
	switch {
	case !ok:
		t.Fatal("no pod")
	case p.Kind != "Pod" || p.UID == "" || p.Status.PodIP != "10.0.0.7" || p.Spec.NodeName != "n1" || p.Spec.ServiceAccountName != "web" ||
		len(p.Spec.Containers) != 1 || p.Spec.Containers[0].Ports[0].ContainerPort != 80 || p.Annotations["a"] != "b":
		t.Errorf("pod %+v", p)
	case len(p.ManagedFields) > 0 || len(p.Spec.Containers[0].Env) > 0:
		t.Errorf("pod has what nobody reads: %+v", p)
	}
	if n, _ := o.Nodes.Get("n1"); n == nil || n.Labels["topology.kubernetes.io/zone"] != "z1" {
		t.Errorf("node %+v", n)
	}
	if collection.Len(o.EndpointSlices) != 1 || collection.Len(o.AuthorizationPolicies) != 1 {
		t.Errorf("%d slices, %d policies", collection.Len(o.EndpointSlices), collection.Len(o.AuthorizationPolicies))
	}
	if x, _ := o.Secrets.Get("default/site"); x == nil || string(x.Data["tls.key"]) != "b" {
		t.Errorf("secret %+v", x)
	}
	if x, _ := o.Secrets.Get("default/password"); x == nil || len(x.Data) > 0 {
		t.Errorf("a Secret that is not for us stays in memory: %+v", x)
	}

	t.Run("a policy that is changed into nonsense stays what it was, and is told", func(t *testing.T) {
		api.Apply(policy("good", "{action: DENY, rulez: 1}"))
		eventually(t, "the problem is told", func() bool { return len(s.Problems()) == 1 })
		p := s.Problems()[0]
		if p.File != "AuthorizationPolicy default/good" || !strings.Contains(p.Why, `unknown field "rulez"`) || len(p.Kept) != 1 {
			t.Errorf("problem %+v", p)
		}
		if a, _ := o.AuthorizationPolicies.Get("default/good"); a == nil || len(a.Spec.Rules) != 1 {
			t.Errorf("policy %v", a)
		}
		api.Apply(policy("good", "{action: DENY, rules: [{}]}"))
		eventually(t, "it is good again", func() bool {
			a, _ := o.AuthorizationPolicies.Get("default/good")
			return len(s.Problems()) == 0 && a != nil && a.Spec.Rules[0].From == nil
		})
	})
	t.Run("a policy that was never understood denies what it selects", func(t *testing.T) {
		api.Apply(policy("odd", "{selector: {matchLabels: {app: web}}, action: PERMIT}"))
		eventually(t, "it denies", func() bool { a, _ := o.AuthorizationPolicies.Get("default/odd"); return a != nil })
		a, _ := o.AuthorizationPolicies.Get("default/odd")
		if a.Spec.Action.String() != "DENY" || len(a.Spec.Rules) != 1 || a.Spec.Selector.MatchLabels["app"] != "web" {
			t.Errorf("policy %v", &a.Spec)
		}
		api.Delete("security.istio.io/v1", "AuthorizationPolicy", "default", "odd")
		eventually(t, "it is gone", func() bool {
			_, there := o.AuthorizationPolicies.Get("default/odd")
			return !there && len(s.Problems()) == 0
		})
	})
	t.Run("a kind that is defined later is picked up, at whatever version", func(t *testing.T) {
		api.Define("networking.istio.io", "ServiceEntry", "serviceentries", true, "v1beta1")
		api.Apply("apiVersion: networking.istio.io/v1beta1\nkind: ServiceEntry\nmetadata: {name: e, namespace: default}\nspec: {hosts: [a.example], resolution: DNS, ports: [{number: 80, name: http}]}\n")
		eventually(t, "the entry is there", func() bool { _, ok := o.ServiceEntries.Get("default/e"); return ok })
		api.Delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "serviceentries.networking.istio.io")
		eventually(t, "the entry went with its definition", func() bool { _, ok := o.ServiceEntries.Get("default/e"); return !ok })
	})
	t.Run("what did not change for us is no change", func(t *testing.T) {
		before, _ := o.Nodes.Get("n1")
		api.Apply("apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}, annotations: {beat: '1'}}\n")
		api.Apply(pod("web-2", "10.0.0.8"))
		eventually(t, "the pod is there", func() bool { _, ok := o.Pods.Get("default/web-2"); return ok })
		if after, _ := o.Nodes.Get("n1"); after != before {
			t.Error("a heartbeat replaced the node")
		}
	})
	t.Run("a pod that has ended is none", func(t *testing.T) {
		api.Apply(strings.Replace(pod("web-2", "10.0.0.8"), "phase: Running", "phase: Succeeded", 1))
		eventually(t, "the pod is gone", func() bool { _, ok := o.Pods.Get("default/web-2"); return !ok })
	})
}
