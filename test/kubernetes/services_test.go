package kubernetes

import (
	"fmt"
	"strings"
	"testing"
)

// services: every kind of Service leads where it says, with the identity of who is reached, and nowhere else.
func (s *stage) services(t *testing.T) {
	ns, plain := s.ambient(t, "services"), s.Namespace(t, "services-plain")
	web := func(name, node string) string {
		return pod{name: name, node: node, app: "web", container: ", ports: [{name: web, containerPort: 8080}]"}.yaml()
	}
	s.apply(t, ns, web("web-one", s.one), web("web-two", s.two), client("caller-one", s.one).yaml(), client("caller-two", s.two).yaml(),
		pod{name: "unready", node: s.two, container: ", readinessProbe: {tcpSocket: {port: 1}}"}.yaml(),
		service("web", ""),
		`{apiVersion: v1, kind: Service, metadata: {name: named}, spec: {selector: {app: web}, ports: [{name: a, port: 81, targetPort: web}, {name: b, port: 82, targetPort: 9001}]}}`,
		`{apiVersion: v1, kind: Service, metadata: {name: elsewhere}, spec: {type: ExternalName, externalName: web.NS.svc.cluster.local}}`,
		serviceOf("web", "local", ", internalTrafficPolicy: Local"),
		serviceOf("web", "near", ", trafficDistribution: PreferSameNode"),
		serviceOf("unready", "early", ", publishNotReadyAddresses: true"),
		serviceOf("unready", "waiting", ""),
	)
	s.apply(t, plain, pod{name: "outside", node: s.two}.yaml())
	s.ready(t, plain)
	s.ready(t, ns, "-l", "app in (web, caller-one, caller-two)")
	two := s.address(t, ns, "web-two")
	s.apply(t, ns, slice("chosen", two), slice("foreign", s.address(t, plain, "outside")),
		strings.Replace(slice("leader", two), "conditions:", "targetRef: {kind: Pod, name: web-two, namespace: NS}, conditions:", 1)) // as operators write

	t.Run("several ports, some by name", func(t *testing.T) {
		s.reaches(t, ns, "caller-one", "named:81", "web-one", "web-two")
		p := s.talk(t, ns, "caller-one", "named", "82")
		if line, err := p.read(); err != nil || !strings.HasPrefix(line, "220 web-") {
			t.Errorf("port 82 says %q, %v", line, err)
		}
	})
	t.Run("ExternalName", func(t *testing.T) { s.reaches(t, ns, "caller-one", "elsewhere", "web-one", "web-two") })
	t.Run("no selector", func(t *testing.T) {
		s.reaches(t, ns, "caller-two", "chosen", "web-two")
		s.identity(t, ns, "caller-two", two+":8080")
		s.reaches(t, ns, "caller-two", "leader", "web-two")
		s.reaches(t, ns, "web-two", "leader", "web-two") // itself
		s.answered(t, ns, "caller-two", "http://foreign/", "outside")
	})
	t.Run("internalTrafficPolicy Local", func(t *testing.T) {
		s.reaches(t, ns, "caller-one", "local", "web-one")
		s.reaches(t, ns, "caller-two", "local", "web-two")
	})
	t.Run("trafficDistribution", func(t *testing.T) {
		s.reaches(t, ns, "caller-one", "near", "web-one")
		s.reaches(t, ns, "caller-two", "near", "web-two")
	})
	t.Run("publishNotReadyAddresses", func(t *testing.T) {
		s.reaches(t, ns, "caller-one", "early", "unready")
		if a, err := s.ask(ns, "caller-one", "http://waiting/"); err == nil {
			t.Errorf("a pod that is not ready answers for a Service that does not say so: %v", a)
		}
	})
	t.Run("near is gone", func(t *testing.T) {
		s.Kubectl(t, "delete", "pod", "-n", ns, "web-one", "--wait=false")
		s.answered(t, ns, "caller-one", "http://near/", "web-two")
		s.Eventually(t, patience, "a local Service without a local pod is refused", func() error {
			if a, err := s.ask(ns, "caller-one", "http://local/"); err == nil {
				return fmt.Errorf("answered by %s", a.Pod)
			}
			return nil
		})
	})
}

// reaches holds that a Service leads to these pods, to each of them and to no other.
func (s *stage) reaches(t *testing.T, ns, from, host string, pods ...string) {
	t.Helper()
	want := map[string]bool{}
	for _, p := range pods {
		want[p] = true
	}
	s.Eventually(t, patience, fmt.Sprintf("%s leads to %v", host, pods), func() error {
		a, err := s.ask(ns, from, "http://"+host+"/", "-H", secret)
		if err != nil {
			return err
		}
		if _, ok := want[a.Pod]; !ok {
			t.Fatalf("%s leads to %s as well, want %v", host, a.Pod, pods)
		}
		want[a.Pod] = false
		for p, still := range want {
			if still {
				return fmt.Errorf("not to %s yet", p)
			}
		}
		return nil
	})
}

// serviceOf describes a Service of the pods that are labelled app.
func serviceOf(app, name, more string) string {
	return strings.Replace(service(name, more), "app: "+name, "app: "+app, 1)
}

// slice describes a Service without a selector, and the only address it has.
func slice(name, address string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {ports: [{name: http, port: 80, targetPort: 8080}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s-1, labels: {kubernetes.io/service-name: %s}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [%q], conditions: {ready: true}}]`, name, name, name, address)
}
