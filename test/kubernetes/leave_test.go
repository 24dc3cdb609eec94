package kubernetes

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// testLeave: CN-16 a mesh that is taken out costs no new connection of its pods, and leaves the nodes byte for byte as they were;
// the authority's key stays for the next installation, unless all is to go.
func testLeave(t *testing.T, c *kube.Cluster) {
	if !c.Fresh {
		t.Skip("the mesh was there before")
	}
	c.NeedsOwn(t)
	m := crowded(t, c)
	o := m.offer(t, "rate=50&timeout=10s")
	authority := func() string {
		return c.Kubectl(t, "get", "secret", "-n", "istio-system", "istio-ca-secret", "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")
	}
	was := authority()
	t.Log(c.Ambit(t, "uninstall", "--skip-confirmation"))
	r := o.end(t)
	// A connection that goes through the proxies at the very moment when a pod leaves ends, as docs/install.md says: one of each pod.
	if r.Tried-r.Whole > 2 {
		t.Errorf("CN-16: %d of %d new connections failed while the mesh was taken out: %v", r.Tried-r.Whole, r.Tried, r.Failed)
	}
	if now := authority(); was == "" || now != was {
		t.Errorf("the authority's key is that of %q, and was that of %q", now, was)
	}
	if notes := c.Kubectl(t, "get", "pods", "-n", m.ns, "-o", "jsonpath={.items[*].metadata.annotations.ambient\\.istio\\.io/redirection}"); strings.TrimSpace(notes) != "" {
		t.Errorf("CN-16: pods still say that they are captured: %s", notes)
	}
	clean := nodesNow(t, c)
	for node, is := range clean {
		if strings.Contains(is, "istio") || strings.Contains(is, "ambit") {
			t.Errorf("CN-16: %s is left with\n%s", node, is)
		}
	}

	// The plugin in the node's own file, and all of it gone again.
	c.Install(t, "ambient", "--set", "values.cni.istioOwnedCNIConfig=false")
	if now := authority(); now != was {
		t.Errorf("a new installation has the authority %q, and not %q", now, was)
	}
	m.captured(t, m.ns, "client")
	for node, is := range nodesNow(t, c) {
		if is == clean[node] {
			t.Errorf("the mesh changes nothing on %s: this test sees nothing", node)
		}
	}
	t.Log(c.Ambit(t, "uninstall", "--purge", "--skip-confirmation"))
	if d := cmp.Diff(clean, nodesNow(t, c)); d != "" {
		t.Errorf("CN-16: nodes (-before +after):\n%s", d)
	}
	for _, look := range []string{
		"namespace istio-system --ignore-not-found",
		"clusterroles,clusterrolebindings,validatingwebhookconfigurations,daemonsets,deployments,services,serviceaccounts,configmaps,secrets,leases -A -l app.kubernetes.io/managed-by=ambit",
		"configmaps -A --field-selector=metadata.name=istio-ca-root-cert",
		"secrets -A --field-selector=metadata.name=istio-ca-secret",
	} {
		if out := c.Kubectl(t, append([]string{"get", "-o", "name"}, strings.Fields(look)...)...); strings.TrimSpace(out) != "" {
			t.Errorf("CN-16: left over: %s", out)
		}
	}
	if crds := c.Kubectl(t, "get", "crd", "-o", "name"); strings.Contains(crds, "istio.io") || strings.Contains(crds, "gateway.networking.k8s.io") {
		t.Errorf("CN-16: left over: %s", crds)
	}
	if again := c.Ambit(t, "uninstall", "--purge", "--skip-confirmation"); !strings.Contains(again, "Nothing of ambit") {
		t.Errorf("uninstalled again, it said\n%s", again)
	}
}

// nodesNow is what a mesh may leave on each node: files of the network configuration byte for byte, plugins, sockets, and its rules in
// the node's and in every process's network.
func nodesNow(t *testing.T, c *kube.Cluster) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, node := range c.Nodes(t) {
		all[node] = c.Enter(t, node, "sh", "-c", `
			for f in /etc/cni/net.d/* /etc/cni/net.d/.[!.]*; do [ -f "$f" ] && { echo "$f:"; cat "$f"; }; done
			ls -A /opt/cni/bin
			find /var/run/istio-cni /var/run/ztunnel ! -type d 2>/dev/null
			nft list tables | grep istio
			ip rule
			for p in /proc/[0-9]*; do readlink "$p/ns/net"; done | sort -u | while read -r space; do
				for p in /proc/[0-9]*; do
					[ "$(readlink "$p/ns/net")" = "$space" ] || continue
					nsenter --net="$p/ns/net" nft list tables 2>/dev/null | grep istio
					break
				done
			done
			true`)
	}
	return all
}
