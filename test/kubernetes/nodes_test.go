package kubernetes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/samples/apps/witness"
)

// nodePorts: pods of the mesh are reached by ports of nodes from nodes, from outside and from the mesh, as their Services
// say, and a strict one by none of these.
func (s *stage) nodePorts(t *testing.T) {
	s.NeedsOwn(t) // to be outside of it
	ns := s.ambient(t, "ports")
	nodePort := func(name, more string) string { return serviceOf("web", name, ", type: NodePort"+more) }
	s.apply(t, ns, pod{name: "web", node: s.one, container: ", ports: [{containerPort: 8080, hostPort: 18080}]"}.yaml(),
		pod{name: "shut", node: s.one}.yaml(), client("caller", s.two).yaml(),
		`{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: shut}, spec: {selector: {matchLabels: {app: shut}}, mtls: {mode: STRICT}}}`,
		nodePort("any", ""), nodePort("local", ", externalTrafficPolicy: Local"), serviceOf("shut", "shut-any", ", type: NodePort"),
		serviceOf("web", "balanced", ", type: LoadBalancer"))
	s.ready(t, ns)
	one, two := s.nodeAddress(t, s.one), s.nodeAddress(t, s.two)
	port := func(service string) string { return s.get(t, ns, "service/"+service, ".spec.ports[0].nodePort") }

	for _, from := range []string{"control-plane", s.one, s.two} { // the first is outside of the nodes
		for _, at := range []string{one + ":" + port("any"), two + ":" + port("any"), one + ":" + port("local"), one + ":" + port("balanced")} {
			s.from(t, from, at, "web")
		}
	}
	s.from(t, "control-plane", one+":18080", "web")
	if a := s.from(t, "control-plane", one+":"+port("local"), "web"); strings.HasPrefix(a.From, "10.244.") || strings.HasPrefix(a.From, one+":") {
		t.Errorf("with externalTrafficPolicy Local the client is seen as %s", a.From)
	}
	if a, err := s.tryFrom("control-plane", two+":"+port("local")); err == nil {
		t.Errorf("a node without a pod of it answers for a Service of policy Local: %v", a)
	}
	s.answered(t, ns, "caller", fmt.Sprintf("http://%s:%s/", one, port("any")), "web")
	s.answered(t, ns, "caller", fmt.Sprintf("http://%s:18080/", one), "web")

	for _, at := range []string{one + ":" + port("shut-any"), two + ":" + port("shut-any")} { // BP-01 by a node's port
		if a, err := s.tryFrom("control-plane", at); err == nil {
			t.Errorf("a strict pod answers at %s: %v", at, a)
		}
	}
	out := s.in(t, ns, "shut", "curl", "-sS", "http://127.0.0.1:8080/seen")
	var seen map[string]map[string]witness.Seen
	if err := json.Unmarshal([]byte(out), &seen); err != nil {
		t.Fatal(err)
	}
	for from, what := range seen["8080"] {
		if from != "127.0.0.1" && !strings.HasPrefix(from, "169.254.7.127") && what.Bytes > 0 {
			t.Errorf("%d bytes of %s reached the strict pod", what.Bytes, from)
		}
	}
}

func (s *stage) nodeAddress(t *testing.T, node string) string {
	t.Helper()
	return s.get(t, "default", "node/"+node, `.status.addresses[?(@.type=="InternalIP")].address`)
}

// from asks a witness from a node, or from the control plane's machine.
func (s *stage) from(t *testing.T, node, at, by string) (a witness.Answer) {
	t.Helper()
	s.Eventually(t, patience, fmt.Sprintf("%s answers %s at %s", by, node, at), func() (err error) {
		if a, err = s.tryFrom(node, at); err == nil && a.Pod != by {
			err = fmt.Errorf("answered by %s", a.Pod)
		}
		return err
	})
	return a
}

func (s *stage) tryFrom(node, at string) (a witness.Answer, err error) {
	out, err := s.TryEnter(node, "curl", "-sS", "-f", "-m", "5", "http://"+at+"/")
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal([]byte(out), &a)
}

// hostNetwork: a pod of the node's network is never captured, whatever its labels; it reaches pods of the mesh that let it
// in, and is reached by them.
func (s *stage) hostNetwork(t *testing.T) {
	ns := s.ambient(t, "host")
	s.apply(t, ns, pod{name: "web", node: s.two}.yaml(), service("web", ""), client("caller", s.two).yaml(), pod{name: "shut", node: s.two}.yaml(),
		labelled(pod{name: "host", node: s.one, args: "[witness, -http, ':18081', -echo, '', -greet, '', -udp, '']", spec: ", hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet"}, "ambient").yaml(),
		serviceOf("host", "host", ""), `{apiVersion: v1, kind: Service, metadata: {name: by-host}, spec: {selector: {app: host}, ports: [{port: 80, targetPort: 18081}]}}`,
		`{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: shut}, spec: {selector: {matchLabels: {app: shut}}, mtls: {mode: STRICT}}}`)
	s.ready(t, ns)
	s.answered(t, ns, "host", "http://web/", "web")
	s.answered(t, ns, "caller", "http://by-host/", s.one)
	s.answered(t, ns, "caller", "http://"+s.nodeAddress(t, s.one)+":18081/", s.one)
	s.refused(t, ns, "host", s.address(t, ns, "shut")+":8080", ns, "shut", "8080")
	s.redirection(t, ns, "host", "")
	if s.inMesh(t, ns, "host") {
		t.Error("something of the mesh listens on the node")
	}
}

// apiServer: pods of the mesh, strict ones, are looked into by kubectl as any other, and speak to the API server.
func (s *stage) apiServer(t *testing.T) {
	ns := s.ambient(t, "api")
	s.apply(t, ns, strict, pod{name: "web", node: s.one}.yaml(), client("caller", s.two).yaml())
	s.ready(t, ns)
	token := strings.TrimSpace(s.Kubectl(t, "create", "token", "-n", ns, "caller"))
	for _, host := range []string{"kubernetes.default", "kubernetes.default.svc.cluster.local", s.get(t, "default", "service/kubernetes", ".spec.clusterIP")} {
		if out := s.in(t, ns, "caller", "curl", "-sS", "-k", "-f", "-m", "10", "-H", "Authorization: Bearer "+token, "https://"+host+"/api"); !strings.Contains(out, "APIVersions") {
			t.Errorf("%s says %q", host, out)
		}
	}
	p := s.command(t, "port-forward", "-n", ns, "pod/web", ":8080")
	line, err := p.read()
	_, port, ok := strings.Cut(line, "127.0.0.1:")
	if !ok {
		t.Fatalf("port-forward says %q, %v\n%s", line, err, &p.err)
	}
	port, _, _ = strings.Cut(port, " ")
	r, err := http.Get("http://127.0.0.1:" + port + "/")
	if err != nil {
		t.Fatalf("through port-forward: %v", err)
	}
	defer r.Body.Close()
	var a witness.Answer
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil || a.Pod != "web" {
		t.Errorf("through port-forward: %v, %v", a, err)
	}
	if out := s.Kubectl(t, "logs", "-n", ns, "web"); out == "" {
		t.Error("kubectl logs says nothing")
	}
}
