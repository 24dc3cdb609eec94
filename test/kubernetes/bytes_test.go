package kubernetes

import (
	"encoding/json"
	"strings"
	"testing"
)

// bytes: whatever an application says over TCP arrives whole, in order and with its ends; what is not TCP is left alone.
func (s *stage) bytes(t *testing.T) {
	ns := s.ambient(t, "bytes")
	s.apply(t, ns, strict, client("caller", s.one).yaml(), pod{name: "web", node: s.two}.yaml(), service("web", ""),
		pod{name: "sink", node: s.two, args: `[load, serve, ":9000"]`, container: ", readinessProbe: {tcpSocket: {port: 9001}, periodSeconds: 1}"}.yaml(), service("sink", ""),
		`{apiVersion: v1, kind: Pod, metadata: {name: own-dns, annotations: {ambient.istio.io/dns-capture: "false"}}, spec: {nodeName: ONE, terminationGracePeriodSeconds: 1, containers: [{name: app, image: IMAGE, args: [sleep, infinity]}]}}`)
	s.ready(t, ns)

	t.Run("a server that speaks first", func(t *testing.T) {
		p := s.talk(t, ns, "caller", "web", "9001")
		p.hear(t, "220 web")
		p.say(t, "hello")
	})
	t.Run("half-close: the answer comes whole after the question's end", func(t *testing.T) {
		p := s.talk(t, ns, "caller", "web", "9000")
		p.say(t, "question")
		p.in.Close()
		p.ends(t)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("it does not end well: %v\n%s", err, &p.err)
		}
	})
	t.Run("megabytes both ways, and resets", func(t *testing.T) {
		s.offer(t, ns, "caller", "sink:9000", "-rate=10", "-count=30", "-size=4194304", "-timeout=80s").wait(t).without(t)
		s.offer(t, ns, "caller", "sink:9000", "-rate=50", "-count=100", "-rude").wait(t).without(t)
		var poured struct{ MiB, Seconds float64 }
		out := s.in(t, ns, "caller", "ambit-sample", "load", "fetch", "-mib=64", "sink:9000")
		if err := json.Unmarshal([]byte(out), &poured); err != nil || poured.MiB != 64 {
			t.Errorf("fetch says %q, %v", out, err)
		}
	})
	t.Run("UDP is left alone", func(t *testing.T) {
		p := s.start(t, ns, "caller", "nc", "-u", "web", "9053")
		p.say(t, "datagram")
		if seen := s.seen(t, ns, "web", "9053", s.address(t, ns, "caller")); seen.Bytes != int64(len("datagram\n")) {
			t.Errorf("seen of it: %+v", seen)
		}
	})
	t.Run("BP-14 names: the cluster's, by search domains, and none", func(t *testing.T) {
		for _, from := range []string{"caller", "own-dns"} {
			for _, name := range []string{"web", "web." + ns, "web." + ns + ".svc", "web." + ns + ".svc.cluster.local", "web." + ns + ".svc.cluster.local."} {
				s.answered(t, ns, from, "http://"+name+"/", "web", "-H", secret)
			}
			out, err := s.Try("exec", "-n", ns, from, "--", "curl", "-sS", "-m", "20", "http://no-such-name/")
			if err == nil || !strings.Contains(out, "no such host") && !strings.Contains(out, "Could not resolve") {
				t.Errorf("a name that is not there, in %s: %v %s", from, err, out)
			}
		}
	})
	t.Run("BP-16 a pod's resolver is for the pod alone", func(t *testing.T) {
		out := s.Namespace(t, "bytes-plain")
		s.apply(t, out, client("stranger", s.one).yaml())
		s.ready(t, out)
		if got, err := s.Try("exec", "-n", out, "stranger", "--", "nc", "-z", "-w", "5", s.address(t, ns, "web"), "15053"); err == nil {
			t.Logf("port 15053 takes a connection: %s", got)
			p := s.talk(t, out, "stranger", s.address(t, ns, "web"), "15053")
			p.ends(t)
		}
	})
}

// longLived opens what is to live through all other scenarios: a connection on which nothing is said, and a watch at the
// API server. The function it gives looks at them.
func (s *stage) longLived(t *testing.T) func(*testing.T) {
	t.Helper()
	ns := s.ambient(t, "long")
	s.apply(t, ns, pod{name: "web", node: s.two}.yaml(), service("web", ""), client("caller", s.one).yaml(),
		`{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: caller}, subjects: [{kind: ServiceAccount, name: caller}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}`)
	s.ready(t, ns)
	idle := s.talk(t, ns, "caller", "web", "9000")
	idle.say(t, "before")
	token := strings.TrimSpace(s.Kubectl(t, "create", "token", "-n", ns, "caller"))
	watch := s.start(t, ns, "caller", "curl", "-sS", "-k", "-N", "-H", "Authorization: Bearer "+token,
		"https://kubernetes.default/api/v1/namespaces/"+ns+"/configmaps?watch=1&fieldSelector=metadata.name%3Dnews&timeoutSeconds=3000")
	s.Kubectl(t, "create", "configmap", "-n", ns, "news", "--from-literal=day=first")
	if line, err := watch.read(); err != nil || !strings.Contains(line, `"type":"ADDED"`) {
		t.Fatalf("the watch says %.200q, %v\n%s", line, err, &watch.err)
	}
	return func(t *testing.T) {
		t.Helper()
		idle.say(t, "after")
		s.Kubectl(t, "label", "configmap", "-n", ns, "news", "day=last")
		if line, err := watch.read(); err != nil || !strings.Contains(line, `"type":"MODIFIED"`) || !strings.Contains(line, `"day":"last"`) {
			t.Errorf("the watch says %.200q, %v\n%s", line, err, &watch.err)
		}
	}
}
