package kubernetes

import (
	"strings"
	"testing"
)

// jobs: what is to end does, though all of it speaks through the mesh: Jobs, those of CronJobs, and init containers, whose
// first act is a connection that only the mesh lets in; a sidecar of Kubernetes keeps no Job.
func (s *stage) jobs(t *testing.T) {
	ns := s.ambient(t, "jobs")
	const fetch = `{image: IMAGE, args: [curl, -sS, -f, -m, "10", -H, "` + secret + `", "http://web/"]`
	s.apply(t, ns, strict, pod{name: "web", node: s.one}.yaml(), service("web", ""))
	s.ready(t, ns)
	s.apply(t, ns, `
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  backoffLimit: 0
  completions: 3
  parallelism: 3
  template: {spec: {restartPolicy: Never, nodeName: TWO, containers: [`+fetch+`, name: app}]}}`, `
apiVersion: batch/v1
kind: Job
metadata: {name: beside}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      nodeName: TWO
      initContainers:
        - {name: sidecar, image: IMAGE, args: [witness], restartPolicy: Always, startupProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}}
      containers:
        - {name: app, image: IMAGE, args: [curl, -sS, -f, "http://127.0.0.1:8080/", "http://web/"]}`, `
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 1 1 *"
  jobTemplate: {spec: {backoffLimit: 0, template: {spec: {restartPolicy: Never, nodeName: ONE, containers: [`+fetch+`, name: app}]}}}}`, `
apiVersion: v1
kind: Pod
metadata: {name: prepared}
spec:
  nodeName: TWO
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  initContainers: [`+fetch+`, name: first}, `+fetch+`, name: second}]
  containers: [{name: app, image: IMAGE, args: [witness]}]`)
	s.Kubectl(t, "create", "job", "-n", ns, "tonight", "--from=cronjob/nightly")
	s.Kubectl(t, "wait", "-n", ns, "--for=condition=complete", "job/once", "job/beside", "job/tonight", "--timeout=2m")
	s.ready(t, ns, "prepared")
	for _, job := range []string{"job/once", "job/beside", "job/tonight"} {
		if out := s.Kubectl(t, "logs", "-n", ns, job, "-c", "app"); !strings.Contains(out, `"Pod":"web"`) {
			t.Errorf("%s was told %q", job, out)
		}
	}
	for _, c := range []string{"first", "second"} {
		if out := s.Kubectl(t, "logs", "-n", ns, "prepared", "-c", c); !strings.Contains(out, `"Pod":"web"`) {
			t.Errorf("init container %s was told %q", c, out)
		}
	}
	if n := s.get(t, ns, "job/once", ".status.failed"); n != "" && n != "0" {
		t.Errorf("%s pods of the Job failed first", n)
	}
}
