package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/samples/apps/witness"
	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// patience is how long what does happen may take, on a machine that does other things beside.
const patience = 90 * time.Second

// stage is a cluster with two nodes to put pods on, and ways to look at them.
type stage struct {
	*kube.Cluster
	one, two string // nodes
}

func newStage(t *testing.T, c *kube.Cluster) *stage {
	t.Helper()
	c.Mesh(t)
	nodes := c.Nodes(t)
	if len(nodes) < 2 {
		t.Skipf("needs two nodes, and this cluster has %v", nodes)
	}
	return &stage{c, nodes[len(nodes)-2], nodes[len(nodes)-1]}
}

// ambient makes a namespace of the mesh.
func (s *stage) ambient(t *testing.T, prefix string, labels ...string) string {
	t.Helper()
	return s.Namespace(t, prefix, append(labels, "istio.io/dataplane-mode=ambient")...)
}

// apply applies objects to a namespace. NS, IMAGE, ONE and TWO in them are the namespace, the samples' image and the nodes.
func (s *stage) apply(t *testing.T, ns string, yaml ...string) {
	t.Helper()
	r := strings.NewReplacer("IMAGE", s.Image("ambit-sample"), "NS", ns, "ONE", s.one, "TWO", s.two)
	s.Apply(t, r.Replace(strings.Join(yaml, "\n---\n")), "-n", ns)
}

// ready waits until pods are, of which there must be some: all, or those that a selector chooses.
func (s *stage) ready(t *testing.T, ns string, which ...string) {
	t.Helper()
	if len(which) == 0 {
		which = []string{"--all"}
	}
	s.Eventually(t, patience, "pods of "+ns+" ready", func() error {
		_, err := s.Try(append([]string{"wait", "-n", ns, "--for=condition=ready", "pod", "--timeout=5s"}, which...)...)
		return err
	})
}

// pod describes a pod of one container, with a service account of its own.
type pod struct {
	name, node string
	app        string // its label; by default as the name
	args       string // by default a witness
	spec       string // more of the pod's spec
	labels     string // more of them
	container  string // more of its container
}

func (p pod) yaml() string {
	if p.app == "" {
		p.app = p.name
	}
	if p.args == "" {
		p.args = "[witness]"
	}
	if p.args == "[witness]" && !strings.Contains(p.container, "readinessProbe") {
		p.container += ", readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}"
	}
	return fmt.Sprintf(`{apiVersion: v1, kind: ServiceAccount, metadata: {name: %s}}
---
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s%s}}
spec: {serviceAccountName: %s, nodeName: %q, terminationGracePeriodSeconds: 1%s, containers: [{name: app, image: IMAGE, args: %s%s}]}`,
		p.name, p.name, p.app, p.labels, p.name, p.node, p.spec, p.args, p.container)
}

// labelled is a pod that says itself whether it is of the mesh.
func labelled(p pod, mode string) pod {
	p.labels += ", istio.io/dataplane-mode: " + mode
	return p
}

// client describes a pod that does nothing until it is told to.
func client(name, node string) pod { return pod{name: name, node: node, args: "[sleep, infinity]"} }

// service describes a Service with the ports of a witness.
func service(name, more string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {selector: {app: %s}, ports: [
  {name: http, port: 80, targetPort: 8080}, {name: echo, port: 9000}, {name: greet, port: 9001}, {name: udp, port: 9053, protocol: UDP}]%s}}`, name, name, more)
}

// in runs a program in a pod, and must succeed.
func (s *stage) in(t *testing.T, ns, pod string, args ...string) string {
	t.Helper()
	return s.Kubectl(t, append([]string{"exec", "-n", ns, pod, "--"}, args...)...)
}

// secret is what pods of the mesh say to each other, and what must never be on the network between nodes.
const secret = "X-Mark: not-for-the-network-between-nodes"

// ask gets what a witness answers to a pod; more is for curl.
func (s *stage) ask(ns, pod, url string, more ...string) (witness.Answer, error) {
	var a witness.Answer
	out, err := s.Try(append([]string{"exec", "-n", ns, pod, "--", "curl", "-sS", "-f", "-m", "10", url}, more...)...)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		return a, fmt.Errorf("%s says %q: %w", url, out, err)
	}
	return a, nil
}

// answered asks until the right pod answers: a Service is there a moment after it is applied.
func (s *stage) answered(t *testing.T, ns, pod, url, by string, more ...string) (a witness.Answer) {
	t.Helper()
	s.Eventually(t, patience, fmt.Sprintf("%s/%s is answered by %s at %s", ns, pod, by, url), func() (err error) {
		if a, err = s.ask(ns, pod, url, more...); err == nil && a.Pod != by {
			err = fmt.Errorf("answered by %s", a.Pod)
		}
		return err
	})
	return a
}

// seen is what reached a witness's port from an address. Its own questions come from itself.
func (s *stage) seen(t *testing.T, ns, pod, port, from string) witness.Seen {
	t.Helper()
	var seen map[string]map[string]witness.Seen
	out := s.in(t, ns, pod, "curl", "-sS", "-f", "http://127.0.0.1:8080/seen")
	if err := json.Unmarshal([]byte(out), &seen); err != nil {
		t.Fatalf("%s/%s says %q: %v", ns, pod, out, err)
	}
	return seen[port][from]
}

// get is one field of an object.
func (s *stage) get(t *testing.T, ns, object, path string) string {
	t.Helper()
	return strings.TrimSpace(s.Kubectl(t, "get", "-n", ns, object, "-o", "jsonpath={"+path+"}"))
}

// address is a pod's.
func (s *stage) address(t *testing.T, ns, pod string) string {
	t.Helper()
	return s.get(t, ns, "pod/"+pod, ".status.podIP")
}

// captured waits until a pod is in the mesh.
func (s *stage) captured(t *testing.T, ns, pod string) {
	t.Helper()
	s.redirection(t, ns, pod, "enabled")
}

// redirection waits for what the node agent says of a pod.
func (s *stage) redirection(t *testing.T, ns, pod, want string) {
	t.Helper()
	s.Eventually(t, patience, fmt.Sprintf("redirection of %s/%s is %q", ns, pod, want), func() error {
		got, err := s.Try("get", "pod", "-n", ns, pod, "-o", `jsonpath={.metadata.annotations.ambient\.istio\.io/redirection}`)
		if err == nil && strings.TrimSpace(got) != want {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

// refused holds that a pod gets nothing from an address, and that not a byte of it arrives at the witness there.
func (s *stage) refused(t *testing.T, fromNS, from, address, ns, to, port string) {
	t.Helper()
	at := s.address(t, fromNS, from)
	before := s.seen(t, ns, to, port, at)
	out, err := s.Try("exec", "-n", fromNS, from, "--", "curl", "-sS", "-m", "5", "http://"+address+"/")
	if err == nil {
		t.Errorf("%s/%s is let in at %s: %s", fromNS, from, address, out)
	}
	if after := s.seen(t, ns, to, port, at); after.Bytes != before.Bytes {
		t.Errorf("%d bytes of %s/%s reached %s/%s", after.Bytes-before.Bytes, fromNS, from, ns, to)
	}
}

// logged waits for a connection's line of a node proxy that holds all words.
func (s *stage) logged(t *testing.T, words ...string) string {
	t.Helper()
	var found string
	s.Eventually(t, patience, fmt.Sprintf("a line of ztunnel with %q", words), func() error {
		out, err := s.Try("logs", "-n", "istio-system", "-l", "app=ztunnel", "--tail=-1", "--since=10m", "--max-log-requests=20")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				found = line
				return nil
			}
		}
		return errors.New("none")
	})
	return found
}

// identity waits for a proxy to have said that an address was reached by a peer with an account's identity.
func (s *stage) identity(t *testing.T, ns, account, address string) {
	t.Helper()
	s.logged(t, "inbound", "spiffe://cluster.local/ns/"+ns+"/sa/"+account, address)
}

// restarts is how often a pod's containers were started anew.
func (s *stage) restarts(t *testing.T, ns, pod string) string {
	t.Helper()
	return s.get(t, ns, "pod/"+pod, ".status.containerStatuses[*].restartCount")
}
