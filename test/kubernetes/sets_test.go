package kubernetes

import (
	"fmt"
	"strings"
	"testing"
)

// sets: pods of a StatefulSet are reached by their own names, whichever addresses they have, and by that of their headless
// Service; what is scaled down is gone, and what comes up again has its old name.
func (s *stage) sets(t *testing.T) {
	ns := s.ambient(t, "sets")
	s.apply(t, ns, client("caller", s.one).yaml(), `
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: http, port: 8080}, {name: echo, port: 9000}]}`, `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: IMAGE, args: [witness], readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}}]`)
	s.rolledOut(t, ns, "statefulset/db")
	s.ready(t, ns)
	for i := range 3 {
		name := fmt.Sprintf("db-%d", i)
		a := s.answered(t, ns, "caller", "http://"+name+".db:8080/", name, "-H", secret)
		if at := s.address(t, ns, name) + ":8080"; a.At != at {
			t.Errorf("%s is reached at %s, its address is %s", name, a.At, at)
		}
	}
	s.identity(t, ns, "caller", s.address(t, ns, "db-2")+":8080")
	s.reaches(t, ns, "caller", "db:8080", "db-0", "db-1", "db-2")
	s.in(t, ns, "db-0", "curl", "-sS", "-f", "-m", "10", "-H", secret, "http://db-1.db:8080/")

	s.Kubectl(t, "scale", "statefulset/db", "-n", ns, "--replicas=1")
	s.Kubectl(t, "wait", "-n", ns, "--for=delete", "pod/db-2", "pod/db-1", "--timeout=2m")
	s.Eventually(t, patience, "db-2 is not known any more", func() error {
		if a, err := s.ask(ns, "caller", "http://db-2.db:8080/"); err == nil {
			return fmt.Errorf("answered by %s", a.Pod)
		}
		return nil
	})
	s.reaches(t, ns, "caller", "db:8080", "db-0")
	s.Kubectl(t, "scale", "statefulset/db", "-n", ns, "--replicas=3")
	s.rolledOut(t, ns, "statefulset/db")
	s.answered(t, ns, "caller", "http://db-2.db:8080/", "db-2", "-H", secret)
}

// rolledOut waits until all of a workload is as it should be.
func (s *stage) rolledOut(t *testing.T, ns, what string) {
	t.Helper()
	s.Kubectl(t, "rollout", "status", "-n", ns, what, "--timeout=3m")
}

// moved: a pod that comes back on another node is reached there, and whoever has its old address has neither its callers
// nor its rights (identities belong to pods, not to addresses).
func (s *stage) moved(t *testing.T) {
	s.NeedsOwn(t) // to give an address out again at once
	ns := s.ambient(t, "moved")
	a := pod{name: "alice", node: s.two, app: "alice"}
	s.apply(t, ns, client("caller", s.one).yaml(), pod{name: "vault", node: s.one}.yaml(), a.yaml(), service("alice", ""), service("vault", ""),
		strict, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: alice-alone}
spec: {selector: {matchLabels: {app: vault}}, rules: [{from: [{source: {principals: [cluster.local/ns/NS/sa/alice]}}]}]}`)
	s.ready(t, ns)
	s.answered(t, ns, "caller", "http://alice/", "alice", "-H", secret)
	s.answered(t, ns, "alice", "http://vault/", "vault", "-H", secret)
	old := s.address(t, ns, "alice")

	s.Kubectl(t, "delete", "pod", "-n", ns, "alice", "--grace-period=1")
	a.node = s.one
	s.apply(t, ns, a.yaml())
	s.ready(t, ns)
	for try := 0; ; try++ {
		// The next address that is given out on the node is the one after this.
		s.Enter(t, s.two, "sh", "-c", fmt.Sprintf("echo -n %s >/var/lib/cni/networks/cluster/last_reserved_ip.0", before(t, old)))
		s.apply(t, ns, pod{name: "mallory", node: s.two, app: "mallory"}.yaml())
		s.ready(t, ns)
		if s.address(t, ns, "mallory") == old {
			break
		}
		if try == 40 { // pods of other scenarios may have been quicker
			t.Fatalf("no pod was given %s again", old)
		}
		s.Kubectl(t, "delete", "pod", "-n", ns, "mallory", "--grace-period=1")
	}
	if got := s.answered(t, ns, "caller", "http://alice/", "alice", "-H", secret); strings.HasPrefix(got.At, old+":") {
		t.Errorf("alice is reached at %s, where mallory is now", got.At)
	}
	s.answered(t, ns, "alice", "http://vault/", "vault", "-H", secret)
	s.refused(t, ns, "mallory", "vault", ns, "vault", "8080")
	if got, err := s.ask(ns, "caller", "http://"+old+":8080/", "-H", secret); err != nil || got.Pod != "mallory" {
		t.Errorf("at mallory's address: %v, %v", got, err) // through a tunnel, whose end must have her identity: she is strict
	}
}

// before is the address one below.
func before(t *testing.T, address string) string {
	t.Helper()
	var a, b, c, d int
	if _, err := fmt.Sscanf(address, "%d.%d.%d.%d", &a, &b, &c, &d); err != nil || d < 3 {
		t.Skipf("the address %s is not one to give out again: %v", address, err)
	}
	return fmt.Sprintf("%d.%d.%d.%d", a, b, c, d-1)
}
