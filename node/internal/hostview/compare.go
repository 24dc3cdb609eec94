package hostview

import (
	"fmt"
	"slices"
	"strings"
)

// Given are the directories that an agent works on, as its own process sees them.
type Given struct{ ConfDir, BinDir string }

// Differences say which of the directories are not those that the runtime uses, and what to set.
func Differences(root Root, r Runtime, g Given) ([]string, error) {
	by := r.Name
	if r.From != "" {
		by += " (" + r.From + ")"
	}
	var all []string
	if r.Nested == "" { // where that is, and how, is another plugin's to say
		same, err := root.Same(r.ConfDir, g.ConfDir)
		if err != nil {
			return nil, err
		}
		if !same {
			all = append(all, fmt.Sprintf("the node's %s takes network configurations from %s, which is not what is mounted as the agent's %s: set cniConfDir (values.cni.cniConfDir) to %s%s",
				by, r.ConfDir, g.ConfDir, r.ConfDir, orPlatform(r)))
		}
	}
	found := false
	for _, d := range r.BinDirs {
		same, err := root.Same(d, g.BinDir)
		if err != nil {
			return nil, err
		}
		found = found || same
	}
	if !found && len(r.BinDirs) > 0 {
		all = append(all, fmt.Sprintf("the node's %s takes network plugins from %s, which is not what is mounted as the agent's %s: set cniBinDir (values.cni.cniBinDir) to %s%s",
			by, strings.Join(r.BinDirs, " or "), g.BinDir, r.BinDirs[0], orPlatform(r)))
	}
	return all, nil
}

// Platform is the value of global.platform whose directories are the runtime's; "" for the defaults and for what is none of them.
func Platform(r Runtime) string {
	const k3s = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
	switch bin := func(d string) bool { return slices.Contains(r.BinDirs, d) }; {
	case r.ConfDir == k3s && bin("/bin"):
		return "k3d"
	case r.ConfDir == k3s:
		return "k3s"
	case strings.HasPrefix(r.ConfDir, "/var/snap/microk8s/"):
		return "microk8s"
	case bin("/home/kubernetes/bin"):
		return "gke"
	case bin("/var/lib/cni/bin"):
		return "openshift"
	case r.Name == "cri-dockerd":
		return "minikube"
	}
	return ""
}

func orPlatform(r Runtime) string {
	if p := Platform(r); p != "" {
		return ", or global.platform to " + p
	}
	return ""
}
