package kubernetes

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/samples/apps/load"
)

// restricted: pods under the strictest of Kubernetes' security standards are of the mesh like any other: it needs no right
// of theirs. Several containers share what their pod has.
func (s *stage) restricted(t *testing.T) {
	ns := s.ambient(t, "restricted", "pod-security.kubernetes.io/enforce=restricted")
	const harmless = "securityContext: {runAsNonRoot: true, runAsUser: 4711, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}"
	second := "[witness, -http, ':8081', -echo, ':9100', -greet, ':9101', -udp, ':9153']"
	s.apply(t, ns, strict, pod{name: "caller", node: s.one, args: "[sleep, infinity]", container: ", " + harmless}.yaml(),
		strings.Replace(pod{name: "web", node: s.two, container: ", " + harmless}.yaml(), "containers: [", "containers: [{name: second, image: IMAGE, args: "+second+", "+harmless+"}, ", 1))
	s.ready(t, ns)
	if out, err := s.Try("run", "-n", ns, "root", "--image="+s.Image("ambit-sample")); err == nil {
		t.Errorf("the namespace is not restricted: %s", out)
	}
	at := s.address(t, ns, "web")
	for _, port := range []string{"8080", "8081"} {
		if a := s.answered(t, ns, "caller", "http://"+at+":"+port+"/", "web", "-H", secret); !strings.HasPrefix(a.From, s.address(t, ns, "caller")+":") {
			t.Errorf("seen as %s", a.From)
		}
		s.identity(t, ns, "caller", at+":"+port)
	}
	out := s.Kubectl(t, "exec", "-n", ns, "web", "-c", "second", "--", "curl", "-sS", "-f", "http://127.0.0.1:8080/")
	var a struct{ From string }
	if err := json.Unmarshal([]byte(out), &a); err != nil || !strings.HasPrefix(a.From, "127.0.0.1:") {
		t.Errorf("between containers of a pod: %q, %v", out, err)
	}
}

// sandbox: when a pod's network is made anew because its sandbox died, it is captured before anything of it runs.
func (s *stage) sandbox(t *testing.T) {
	s.NeedsOwn(t) // to kill it
	ns := s.ambient(t, "sandbox")
	s.apply(t, ns, strict, pod{name: "web", node: s.one}.yaml(), service("web", ""))
	s.ready(t, ns)
	s.apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: phoenix}
spec:
  nodeName: TWO
  terminationGracePeriodSeconds: 1
  initContainers: [{name: init, image: IMAGE, args: [curl, -sS, -f, -m, "10", -H, "`+secret+`", "http://web/"]}]
  containers: [{name: app, image: IMAGE, args: [load, first, -mark, none]}]`)
	s.ready(t, ns, "phoenix")
	uid := s.get(t, ns, "pod/phoenix", ".metadata.uid")
	first := s.get(t, ns, "pod/phoenix", ".status.containerStatuses[0].containerID")

	// A process's cgroup has the UID of its pod, with dashes or underscores.
	s.Enter(t, s.two, "sh", "-c", fmt.Sprintf(`n=0
		for p in /proc/[0-9]*; do
			if tr _ - <$p/cgroup 2>/dev/null | grep -q %s && [ "$(cat $p/comm)" = pause ]; then kill -9 ${p#/proc/}; n=1; fi
		done
		[ $n = 1 ]`, uid))
	s.Eventually(t, patience, "the pod's containers run anew", func() error {
		out, err := s.Try("get", "pod", "-n", ns, "phoenix", "-o", "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].ready}")
		if err == nil && (strings.HasPrefix(out, first) || !strings.HasSuffix(out, " true")) {
			err = fmt.Errorf("container %s", out)
		}
		return err
	})
	if n := s.get(t, ns, "pod/phoenix", ".status.initContainerStatuses[0].restartCount"); n == "0" {
		t.Error("its init container was not started anew")
	}
	if out := s.Kubectl(t, "logs", "-n", ns, "phoenix", "-c", "init"); !strings.Contains(out, `"Pod":"web"`) {
		t.Errorf("its init container was told %q", out)
	}
	var saw load.First
	if out := s.Kubectl(t, "logs", "-n", ns, "phoenix", "-c", "app"); json.Unmarshal([]byte(out), &saw) != nil || !saw.Captured {
		t.Errorf("as its first act it saw %q", out)
	}
	s.captured(t, ns, "phoenix")
	s.identity(t, ns, "default", s.address(t, ns, "web")+":8080")
}
