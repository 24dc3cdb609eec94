package kubelet

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/internal/runtime"
	"github.com/ambit-mesh/ambit/local/internal/runtime/caps"
)

// The mesh's own pods are the only ones that may touch their node, and the control plane the only one that sees the
// cluster's state: its signing keys are every pod's identity.
const (
	systemNamespace = "istio-system"
	controlPlane    = "istiod" // service account
	controlLabel    = "node-role.kubernetes.io/control-plane"
)

func trusted(pod *corev1.Pod) bool { return pod.Namespace == systemNamespace }

// mayMount refuses host paths by which a pod could become another, or its node.
func (k *Kubelet) mayMount(pod *corev1.Pod, path string) error {
	_, control := k.conf.Labels[controlLabel]
	switch path = filepath.Clean(path); {
	case runtime.IsState(path) && !(trusted(pod) && pod.Spec.ServiceAccountName == controlPlane && control):
		return fmt.Errorf("host path %s: only the control plane's pod (service account %s of namespace %s, on the control-plane node) may mount it: it holds the cluster's keys and Secrets",
			path, controlPlane, systemNamespace)
	case !trusted(pod) && slices.ContainsFunc([]string{"/run", "/var/run", "/etc/cni", "/opt/cni"}, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	}):
		return fmt.Errorf("host path %s: only pods of namespace %s may mount it, as it controls every pod's network; /tmp, /var/lib and /var/log of the node are free", path, systemNamespace)
	}
	return nil
}

// capabilities are what a container gets of what it asks for, and what of that it is denied, in words.
func capabilities(pod *corev1.Pod, c corev1.Container) (got caps.Set, denied string, err error) {
	got = caps.Default
	most := caps.Pod
	if trusted(pod) {
		most = caps.All
	}
	sc := c.SecurityContext
	if sc == nil {
		return got, "", nil
	}
	var refused []string
	take := func(name string, set caps.Set) {
		got |= set & most
		if !most.Has(set) {
			refused = append(refused, name)
		}
	}
	if sc.Privileged != nil && *sc.Privileged {
		take("privileged", caps.All)
	}
	if a := sc.Capabilities; a != nil {
		drop, err := parsed(a.Drop)
		if err != nil {
			return 0, "", err
		}
		for _, d := range drop {
			got &^= d
		}
		add, err := parsed(a.Add)
		if err != nil {
			return 0, "", err
		}
		for i, set := range add {
			take(string(a.Add[i]), set)
		}
	}
	if len(refused) > 0 {
		denied = fmt.Sprintf("container %s asks for %s: outside namespace %s a local pod gets no more than NET_ADMIN beside the usual capabilities, as it runs on your machine",
			c.Name, strings.Join(refused, ", "), systemNamespace)
	}
	return got, denied, nil
}

func parsed(names []corev1.Capability) ([]caps.Set, error) {
	var all []caps.Set
	for _, n := range names {
		set, err := caps.Parse(string(n))
		if err != nil {
			return nil, fmt.Errorf("securityContext.capabilities: %w", err)
		}
		all = append(all, set)
	}
	return all, nil
}
