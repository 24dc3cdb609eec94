package kubernetes

import (
	"fmt"
	"strings"
	"testing"
)

// policies: what AuthorizationPolicy and PeerAuthentication say of a pod is what happens to it, byte for byte, and to
// connections that are open when it is said.
func (s *stage) policies(t *testing.T) {
	ns, other, plain := s.ambient(t, "policies"), s.ambient(t, "policies-other"), s.Namespace(t, "policies-plain")
	s.apply(t, other, client("carol", s.one).yaml())
	s.apply(t, plain, client("dave", s.one).yaml())
	s.apply(t, ns, client("alice", s.one).yaml(), client("bob", s.two).yaml())
	s.ready(t, ns)
	policy := func(of, action, rule string) string {
		return fmt.Sprintf(`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: %s}, spec: {selector: {matchLabels: {app: %s}}, action: %s, rules: [%s]}}`, of, of, action, rule)
	}
	rules := map[string][2]string{
		"deny-principal":  {"DENY", `{from: [{source: {principals: ["cluster.local/ns/NS/sa/bob"]}}]}`},
		"allow-principal": {"ALLOW", `{from: [{source: {principals: ["cluster.local/ns/NS/sa/alice"]}}]}`},
		"allow-namespace": {"ALLOW", `{from: [{source: {namespaces: [` + other + `]}}]}`},
		"deny-port":       {"DENY", `{to: [{operation: {ports: ["8080"]}}]}`},
		"allow-block":     {"ALLOW", `{from: [{source: {ipBlocks: ["` + s.address(t, ns, "alice") + `/32"]}}]}`},
		"deny-all":        {"ALLOW", ``},
	}
	objects := []string{
		pod{name: "strict", node: s.two}.yaml(),
		`{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict}, spec: {selector: {matchLabels: {app: strict}}, mtls: {mode: STRICT}}}`,
		pod{name: "open", node: s.two}.yaml(),
	}
	for name, r := range rules {
		objects = append(objects, policy(name, r[0], r[1]))
	}
	s.apply(t, ns, objects...)
	var pods []string
	for name := range rules {
		pods = append(pods, pod{name: name, node: s.two}.yaml())
	}
	s.apply(t, ns, pods...) // after their policies: those hold from the first moment
	s.ready(t, ns)
	s.ready(t, other)
	s.ready(t, plain)

	callers := map[string]string{"alice": ns, "bob": ns, "carol": other, "dave": plain}
	for to, let := range map[string]string{
		"deny-principal": "alice carol dave", "allow-principal": "alice", "allow-namespace": "carol", "deny-port": "",
		"allow-block": "alice", "deny-all": "", "strict": "alice bob carol", "open": "alice bob carol dave",
	} {
		t.Run(to, func(t *testing.T) { // BP-01, L4-01, L4-02 and L4-10 on pods
			at := s.address(t, ns, to) + ":8080"
			for who, from := range callers {
				if strings.Contains(let, who) {
					s.answered(t, from, who, "http://"+at+"/", to)
				} else {
					s.refused(t, from, who, at, ns, to, "8080")
				}
			}
		})
	}
	t.Run("deny-port lets others through", func(t *testing.T) {
		s.talk(t, ns, "alice", s.address(t, ns, "deny-port"), "9000").say(t, "hello")
	})
	t.Run("BP-02 no way in by the proxy's ports", func(t *testing.T) {
		at, from := s.address(t, ns, "strict"), s.address(t, plain, "dave")
		for _, port := range []string{"15001", "15006", "15008", "15053", "15000", "15020", "15021", "15080"} {
			if out, err := s.Try("exec", "-n", plain, "dave", "--", "curl", "-sS", "-m", "5", "-H", "Host: 127.0.0.1:8080", "http://"+at+":"+port+"/"); err == nil {
				t.Errorf("port %s answers: %s", port, out)
			}
		}
		if seen := s.seen(t, ns, "strict", "8080", from); seen.Bytes != 0 {
			t.Errorf("%d bytes reached the application", seen.Bytes)
		}
	})
	t.Run("L4-07 what is open is cut when it is denied, and only that", func(t *testing.T) {
		at := s.address(t, ns, "open")
		alice, bob := s.talk(t, ns, "alice", at, "9000"), s.talk(t, ns, "bob", at, "9000")
		alice.say(t, "before")
		bob.say(t, "before")
		s.apply(t, ns, policy("open", "DENY", rules["deny-principal"][1]))
		bob.ends(t)
		alice.say(t, "after")
		s.refused(t, ns, "bob", at+":8080", ns, "open", "8080")
		s.Kubectl(t, "delete", "authorizationpolicy", "-n", ns, "open")
		s.answered(t, ns, "bob", "http://"+at+":8080/", "open")
		alice.say(t, "at last")
	})
}
