package kubernetes

import (
	"fmt"
	"strings"
	"testing"
)

// deployment describes servers of the load that end as Kubernetes recommends: they go on until no one sends them more.
func deployment(replicas int, more string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  replicas: %d
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server, drained: NS}}
    spec:
      terminationGracePeriodSeconds: 20
      %s
      containers:
        - name: app
          image: IMAGE
          args: [load, serve, ":9000"]
          readinessProbe: {tcpSocket: {port: 9001}, periodSeconds: 1}
          lifecycle: {preStop: {sleep: {seconds: 4}}}`, replicas, more)
}

// rolling: the pods of a Deployment are replaced under load, and moved from a node that is drained, and nobody notices.
func (s *stage) rolling(t *testing.T) {
	ns := s.ambient(t, "rolling")
	s.apply(t, ns, strict, deployment(2, "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [TWO]}]}}]}}"),
		service("server", ""), client("caller", s.one).yaml(),
		`{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: server}, spec: {minAvailable: 1, selector: {matchLabels: {app: server}}}}`)
	s.rolledOut(t, ns, "deployment/server")
	s.ready(t, ns)
	pods := func() string {
		return s.Kubectl(t, "get", "pods", "-n", ns, "-l", "app=server", "-o", "jsonpath={.items[*].metadata.uid}")
	}
	before := strings.Fields(pods())
	s.offer(t, ns, "caller", "server:9000", "-rate=50", "-count=50").wait(t).without(t)
	l := s.offer(t, ns, "caller", "server:9000", "-rate=50")
	s.Kubectl(t, "rollout", "restart", "-n", ns, "deployment/server")
	s.rolledOut(t, ns, "deployment/server")

	t.Cleanup(func() { s.Kubectl(t, "uncordon", s.two) })
	s.Kubectl(t, "drain", s.two, "--pod-selector=drained="+ns, "--ignore-daemonsets", "--timeout=2m")
	s.rolledOut(t, ns, "deployment/server")
	if left := s.Kubectl(t, "get", "pods", "-n", ns, "-l", "app=server", "--field-selector=spec.nodeName="+s.two, "-o", "name"); left != "" {
		t.Errorf("on the drained node: %s", left)
	}
	s.Kubectl(t, "uncordon", s.two)
	r := l.end(t)
	r.without(t)
	t.Logf("through a rolling update and a drain: %d connections, the slowest %.0f ms, %d ms without one", r.Tried, r.Worst, r.Gap)
	for _, uid := range before {
		if after := pods(); strings.Contains(after, uid) {
			t.Errorf("pod %s was not replaced: %s", uid, after)
		}
	}
}

// ending: BP-17 a pod that is told to end is of the mesh until its last process has ended, in both directions; one that
// ends without grace takes nothing with it, and who has its name next is of the mesh too.
func (s *stage) ending(t *testing.T) {
	ns, plain := s.ambient(t, "ending"), s.Namespace(t, "ending-plain")
	s.apply(t, plain, client("stranger", s.one).yaml())
	abrupt := pod{name: "abrupt", node: s.two, app: "server", args: `[load, serve, ":9000"]`, container: ", readinessProbe: {tcpSocket: {port: 9001}, periodSeconds: 1}"}
	steady := abrupt
	steady.name = "steady"
	s.apply(t, ns, strict, client("caller", s.one).yaml(), pod{name: "web", node: s.one}.yaml(), abrupt.yaml(), steady.yaml(), service("server", ""),
		strings.Replace(pod{name: "slow", node: s.two, container: ", lifecycle: {preStop: {httpGet: {path: /linger, port: 8080}}}"}.yaml(), "PeriodSeconds: 1,", "PeriodSeconds: 120,", 1))
	s.ready(t, ns)
	s.ready(t, plain)

	open := s.talk(t, ns, "caller", s.address(t, ns, "slow"), "9000")
	open.say(t, "before")
	s.Kubectl(t, "delete", "pod", "-n", ns, "slow", "--wait=false")
	open.say(t, "while it ends")
	if a, err := s.ask(ns, "slow", "http://"+s.address(t, ns, "web")+":8080/", "-H", secret); err != nil || a.Pod != "web" {
		t.Errorf("from a pod that ends: %v, %v", a, err) // web takes nothing that does not come through the mesh
	}
	if a, err := s.ask(ns, "caller", "http://"+s.address(t, ns, "slow")+":8080/", "-H", secret); err != nil || a.Pod != "slow" {
		t.Errorf("to a pod that ends: %v, %v", a, err)
	}
	s.refused(t, plain, "stranger", s.address(t, ns, "slow")+":8080", ns, "slow", "8080")
	if !s.inMesh(t, ns, "slow") {
		t.Error("it is not captured any more")
	}
	s.in(t, ns, "slow", "curl", "-sS", "-f", "-X", "POST", "http://127.0.0.1:8080/linger")
	open.ends(t)

	l := s.offer(t, ns, "caller", "server:9000", "-rate=20", "-timeout=5s")
	for range 3 {
		s.Kubectl(t, "delete", "pod", "-n", ns, "abrupt", "--force", "--grace-period=0")
		s.apply(t, ns, abrupt.yaml())
		s.ready(t, ns, "abrupt")
		s.captured(t, ns, "abrupt")
	}
	r := l.end(t)
	if r.Wrong > 0 || r.False > 0 || r.Whole == 0 {
		t.Errorf("of %d connections %d were whole, %d had a wrong byte, %d ended too early and clean", r.Tried, r.Whole, r.Wrong, r.False)
	}
	s.offer(t, ns, "caller", s.address(t, ns, "abrupt")+":9000", "-rate=50", "-count=50").wait(t).without(t)
}
