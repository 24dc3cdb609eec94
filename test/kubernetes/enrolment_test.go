package kubernetes

import (
	"fmt"
	"strings"
	"testing"
)

// joinAndLeave: pods that ran before the label and pods that came after it are captured without a restart and have their
// identity at the peer; without the label they are plain again.
func (s *stage) joinAndLeave(t *testing.T) {
	ns := s.Namespace(t, "join")
	s.apply(t, ns, pod{name: "web", node: s.two}.yaml(), service("web", ""), client("early", s.one).yaml())
	s.ready(t, ns)
	s.answered(t, ns, "early", "http://web/", "web")
	if s.inMesh(t, ns, "early") {
		t.Error("a pod outside the mesh is captured")
	}
	containers := s.containers(t, ns)

	s.Kubectl(t, "label", "namespace", ns, "istio.io/dataplane-mode=ambient")
	s.apply(t, ns, pod{name: "late-web", node: s.one}.yaml(), service("late-web", ""), client("late", s.two).yaml())
	s.captured(t, ns, "early")
	s.captured(t, ns, "web")
	s.ready(t, ns)
	for _, caller := range []string{"early", "late"} {
		for _, to := range []string{"web", "late-web"} {
			if a := s.answered(t, ns, caller, "http://"+to+"/", to, "-H", secret); !strings.HasPrefix(a.From, s.address(t, ns, caller)+":") {
				t.Errorf("%s sees %s as %s", to, caller, a.From)
			}
			s.identity(t, ns, caller, s.address(t, ns, to)+":8080")
		}
	}
	if after := s.containers(t, ns); !strings.HasPrefix(after, containers) {
		t.Errorf("containers were started anew: before %s, after %s", containers, after)
	}

	old := s.talk(t, ns, "early", "web", "9000")
	old.say(t, "before")
	s.Kubectl(t, "label", "namespace", ns, "istio.io/dataplane-mode-")
	for _, p := range []string{"early", "web", "late", "late-web"} {
		s.redirection(t, ns, p, "")
		s.Eventually(t, patience, "nothing of the mesh is left in "+p, func() error {
			if s.inMesh(t, ns, p) {
				return fmt.Errorf("a proxy listens in it")
			}
			return nil
		})
	}
	old.ends(t) // it went through the proxy, which has left
	s.answered(t, ns, "early", "http://late-web/", "late-web")
	s.answered(t, ns, "late", "http://web/", "web")
	if after := s.containers(t, ns); !strings.HasPrefix(after, containers) {
		t.Errorf("containers were started anew: before %s, after %s", containers, after)
	}
}

// singlePods: the label of a pod goes before that of its namespace.
func (s *stage) singlePods(t *testing.T) {
	in, out := s.ambient(t, "single-in"), s.Namespace(t, "single-out")
	s.apply(t, out, labelled(pod{name: "member", node: s.two}, "ambient").yaml(), client("stranger", s.one).yaml(), service("member", ""))
	s.apply(t, in, labelled(pod{name: "hermit", node: s.two}, "none").yaml(), client("caller", s.one).yaml(), service("hermit", ""))
	s.ready(t, in)
	s.ready(t, out)
	s.captured(t, out, "member")
	if s.inMesh(t, in, "hermit") || !s.inMesh(t, out, "member") {
		t.Error("a pod that says none is captured, or one that says ambient is not")
	}
	s.answered(t, in, "caller", "http://member."+out+"/", "member", "-H", secret)
	s.identity(t, in, "caller", s.address(t, out, "member")+":8080")
	s.answered(t, in, "caller", "http://hermit/", "hermit")
	s.answered(t, out, "stranger", "http://hermit."+in+"/", "hermit")

	s.apply(t, out, strict)
	s.Eventually(t, patience, "the member is strict", func() error {
		if a, err := s.ask(out, "stranger", "http://member/"); err == nil {
			return fmt.Errorf("it answers %v", a)
		}
		return nil
	})
	s.refused(t, out, "stranger", s.address(t, out, "member")+":8080", out, "member", "8080")
	s.apply(t, in, strict)
	s.answered(t, out, "stranger", "http://hermit."+in+"/", "hermit") // of a pod that opted out nothing is enforced

	s.Kubectl(t, "label", "pod", "-n", in, "hermit", "istio.io/dataplane-mode-")
	s.captured(t, in, "hermit")
	s.refused(t, out, "stranger", s.address(t, in, "hermit")+":8080", in, "hermit", "8080")
	s.Kubectl(t, "label", "pod", "-n", out, "member", "istio.io/dataplane-mode=none", "--overwrite")
	s.redirection(t, out, "member", "")
	s.answered(t, out, "stranger", "http://member/", "member")
}

const strict = `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default}, spec: {mtls: {mode: STRICT}}}`

// flapping: BP-20 a pod that joins and leaves again and again, under traffic and probed, ends as it is labelled, brings no
// wrong byte, and never fails its probes.
func (s *stage) flapping(t *testing.T) {
	ns := s.ambient(t, "flap")
	s.apply(t, ns, pod{
		name: "server", node: s.two, args: `[load, serve, ":9000"]`,
		container: `, readinessProbe: {httpGet: {port: 9001}, periodSeconds: 1}, livenessProbe: {httpGet: {port: 9001}, periodSeconds: 1, failureThreshold: 3}`,
	}.yaml(),
		service("server", ""), client("caller", s.one).yaml())
	s.ready(t, ns)
	l := s.offer(t, ns, "caller", "server:9000", "-rate=20")
	for range 10 {
		s.Kubectl(t, "label", "pod", "-n", ns, "server", "istio.io/dataplane-mode=none")
		s.redirection(t, ns, "server", "")
		s.Kubectl(t, "label", "pod", "-n", ns, "server", "istio.io/dataplane-mode-")
		s.redirection(t, ns, "server", "enabled")
	}
	r := l.end(t)
	if r.Wrong > 0 || r.False > 0 || r.Whole == 0 {
		t.Errorf("of %d connections %d were whole, %d had a wrong byte, %d ended too early and clean", r.Tried, r.Whole, r.Wrong, r.False)
	}
	t.Logf("10 times out and in: of %d connections %d failed: %v", r.Tried, r.Tried-r.Whole, r.Failed)
	l = s.offer(t, ns, "caller", "server:9000", "-rate=50", "-count=50")
	l.wait(t).without(t)
	if !s.inMesh(t, ns, "server") {
		t.Error("it is not captured at the end")
	}
	if n := s.restarts(t, ns, "server"); n != "0" {
		t.Errorf("it was restarted %s times", n)
	}
	if events := s.Kubectl(t, "get", "events", "-n", ns, "--field-selector=reason=Unhealthy"); strings.Contains(events, "Liveness") {
		t.Errorf("probes failed:\n%s", events)
	}
}
