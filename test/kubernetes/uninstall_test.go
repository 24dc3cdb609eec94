package kubernetes

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// testUninstall: pods of the mesh talk on when it goes, new ones start, and nothing of it stays, in the API server, on
// the nodes and in the pods.
func testUninstall(t *testing.T, c *kube.Cluster) {
	if !c.Fresh {
		t.Skip("the mesh was there before")
	}
	ns := c.Namespace(t, "uninstall", "istio.io/dataplane-mode=ambient")
	c.Kubectl(t, "apply", "-n", ns, "-f", "samples/sleep/sleep.yaml", "-f", "samples/helloworld/helloworld.yaml")
	c.Kubectl(t, "wait", "-n", ns, "--for=condition=Available", "--timeout=3m", "deployment", "--all")
	ask := func() error {
		out, err := c.Try("exec", "-n", ns, "deploy/sleep", "--", "curl", "-sS", "-m", "10", "http://helloworld:5000/hello")
		if err == nil && !strings.Contains(out, "Hello version") {
			err = fmt.Errorf("it said %q", out)
		}
		return err
	}
	c.Eventually(t, patience, "the pods are captured", func() error { return c.Captured(ns) })
	c.Eventually(t, patience, "the pods talk", ask)
	const life = "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].containerID}{\"\\n\"}{end}"
	lives := c.Kubectl(t, "get", "pods", "-n", ns, "--sort-by=.metadata.name", "-o", life)

	type place struct {
		name string
		left func() (string, error)
	}
	places := []place{{"in the API server", func() (string, error) { return c.Shell(inObjects) }}}
	if c.Own() {
		for _, node := range c.Nodes(t) {
			places = append(places, place{"on " + node, func() (string, error) { return c.TryEnter(node, "sh", "-c", onNode) }})
		}
	}
	for _, p := range places {
		if found, err := p.left(); err != nil || found == "" {
			t.Errorf("of a mesh that is there, nothing is seen %s: %v", p.name, err)
		}
	}

	t.Log(c.Ambit(t, "uninstall", "--purge", "--skip-confirmation"))
	c.Eventually(t, patience, "the pods talk without a mesh", ask)
	if now := c.Kubectl(t, "get", "pods", "-n", ns, "--sort-by=.metadata.name", "-o", life); now != lives {
		t.Errorf("pods restarted: now\n%sbefore\n%s", now, lives)
	}
	c.Kubectl(t, "rollout", "restart", "-n", ns, "deployment/sleep")
	c.Kubectl(t, "rollout", "status", "-n", ns, "--timeout=3m", "deployment/sleep")

	for _, place := range places {
		c.Eventually(t, patience, "nothing of the mesh "+place.name, func() error {
			out, err := place.left()
			if err == nil && out != "" {
				err = errors.New(out)
			}
			return err
		})
	}
}

// inObjects prints what of the mesh is in the API server.
const inObjects = `kubectl get -o name namespaces,crd,clusterroles,clusterrolebindings,priorityclasses,apiservices,validatingwebhookconfigurations,mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings |
		grep -E 'istio|ambit|ztunnel|gateway'
	kubectl get -A --no-headers configmaps,secrets,serviceaccounts,roles,rolebindings,leases | grep -E 'istio|ambit|ztunnel'
	kubectl get pods -A -o yaml | grep 'ambient.istio.io/redirection: '
	true`

// onNode prints what of the mesh is on a node and in its pods' network namespaces.
const onNode = `grep -lE 'istio|ambit' /etc/cni/net.d/* 2>/dev/null
	ls -d /opt/cni/bin/istio-cni /opt/cni/bin/ambit-cni /var/run/istio-cni/* /var/run/ztunnel/* 2>/dev/null
	for ns in /proc/1/ns/net /var/run/netns/*; do
		nsenter --net="$ns" sh -c 'nft list tables; ip rule; ss -Hltn' 2>/dev/null |
			grep -E 'istio|ambit|fwmark|:(15001|15006|15008|15053)' | sed "s|^|$ns: |"
	done
	true`
