package kubernetes

import (
	"fmt"
	"strings"
	"testing"
)

// probes: of every kind they reach the application past a strict policy, and those that must fail do.
func (s *stage) probes(t *testing.T) {
	ns, plain := s.ambient(t, "probes"), s.Namespace(t, "probes-plain")
	kinds := map[string]string{
		"http":  "httpGet: {path: /health, port: web}",
		"tcp":   "tcpSocket: {port: 9000}",
		"grpc":  "grpc: {port: 8080}",
		"exec":  `exec: {command: [curl, -sS, -f, "http://127.0.0.1:8080/health"]}`,
		"named": "tcpSocket: {port: web}",
	}
	objects := []string{strict}
	for name, probe := range kinds {
		objects = append(objects, pod{name: name, node: s.one, container: fmt.Sprintf(", ports: [{name: web, containerPort: 8080}], "+
			"startupProbe: {%s, periodSeconds: 1}, readinessProbe: {%s, periodSeconds: 1}, livenessProbe: {%s, periodSeconds: 1}", probe, probe, probe)}.yaml())
	}
	objects = append(objects, // nothing listens there: that a proxy does would be no excuse
		pod{name: "deaf", node: s.one, container: ", readinessProbe: {tcpSocket: {port: 7}, periodSeconds: 1}"}.yaml(),
		pod{name: "mute", node: s.one, container: ", readinessProbe: {httpGet: {path: /, port: 7}, periodSeconds: 1}"}.yaml(),
		pod{name: "dying", node: s.one, container: ", livenessProbe: {tcpSocket: {port: 7}, periodSeconds: 1, failureThreshold: 1}"}.yaml())
	s.apply(t, ns, objects...)
	s.apply(t, plain, client("stranger", s.two).yaml())
	s.ready(t, ns, "-l", "app in (http, tcp, grpc, exec, named)")
	s.ready(t, plain)
	s.refused(t, plain, "stranger", s.address(t, ns, "http")+":8080", ns, "http", "8080") // and so the policy is in force
	for name := range kinds {
		if n := s.restarts(t, ns, name); n != "0" {
			t.Errorf("%s was restarted %s times", name, n)
		}
	}
	for _, name := range []string{"http", "grpc", "exec"} {
		s.in(t, ns, name, "curl", "-sS", "-f", "-X", "POST", "http://127.0.0.1:8080/health?ok=false")
	}
	s.unhealthy(t, ns, "http", "statuscode: 503")
	s.unhealthy(t, ns, "exec", "Readiness probe")
	s.unhealthy(t, ns, "grpc", "NOT_SERVING")
	s.unhealthy(t, ns, "deaf", "refused")
	s.unhealthy(t, ns, "mute", "refused")
	s.Eventually(t, patience, "what fails its liveness probe is restarted", func() error {
		if n := s.restarts(t, ns, "dying"); n == "0" {
			return fmt.Errorf("%s restarts", n)
		}
		return nil
	})
	for _, name := range []string{"deaf", "mute"} {
		if ready := s.get(t, ns, "pod/"+name, ".status.containerStatuses[0].ready"); ready != "false" {
			t.Errorf("%s is ready: %s", name, ready)
		}
	}
}

// unhealthy waits for kubelet to say that a pod's probe failed, and how.
func (s *stage) unhealthy(t *testing.T, ns, pod, how string) {
	t.Helper()
	s.Eventually(t, patience, pod+" fails its probe: "+how, func() error {
		out, err := s.Try("get", "events", "-n", ns, "--field-selector=reason=Unhealthy,involvedObject.name="+pod, "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(out, how) {
			err = fmt.Errorf("events: %q", out)
		}
		return err
	})
}
