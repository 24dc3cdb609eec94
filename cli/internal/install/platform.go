package install

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Platform is the kind of cluster, as far as an installation has to know it, and by what it was told.
func (c *Cluster) Platform(ctx context.Context) (name, why string, err error) {
	nodes, err := c.list(ctx, nodeKind(), "", "")
	if err != nil {
		return "", "", err
	}
	for _, n := range nodes {
		if name, why := platformOf(&n); name != "" {
			return name, why, nil
		}
	}
	return "", "", nil
}

// platformOf tells the platform of a node from its labels, its provider and its software.
func platformOf(n *Object) (name, why string) {
	info := func(key string) string {
		s, _, _ := unstructured.NestedString(n.Object, "status", "nodeInfo", key)
		return s
	}
	provider, _, _ := unstructured.NestedString(n.Object, "spec", "providerID")
	labels, version, runtime := n.GetLabels(), info("kubeletVersion"), info("containerRuntimeVersion")
	has := func(label string) bool { _, ok := labels[label]; return ok }
	k3s := strings.Contains(version, "+k3s") || labels["node.kubernetes.io/instance-type"] == "k3s" || strings.HasPrefix(provider, "k3s://")
	switch {
	case has("cloud.google.com/gke-nodepool"), strings.Contains(version, "-gke."):
		return "gke", "node " + n.GetName() + " is of a GKE node pool"
	case has("node.openshift.io/os_id"), strings.Contains(info("osImage"), "Red Hat Enterprise Linux CoreOS"):
		return "openshift", "node " + n.GetName() + " runs " + info("osImage")
	case has("microk8s.io/cluster"):
		return "microk8s", "node " + n.GetName() + " has the label microk8s.io/cluster"
	case has("minikube.k8s.io/name"):
		if strings.HasPrefix(runtime, "docker://") {
			return "minikube", "node " + n.GetName() + " is minikube's, with Docker as its runtime"
		}
		return "", "" // with containerd or CRI-O its paths are the usual ones
	case k3s && strings.HasPrefix(n.GetName(), "k3d-"):
		return "k3d", "node " + n.GetName() + " runs " + version + " in a container of k3d"
	case k3s:
		return "k3s", "node " + n.GetName() + " runs " + version
	}
	return "", ""
}
