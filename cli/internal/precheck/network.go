package precheck

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func nodes(f Facts) []Finding {
	var arch, old, virtual []string
	for _, n := range f.Nodes {
		info := func(key string) string { return text(&n, "status", "nodeInfo", key) }
		if info("operatingSystem") == "windows" {
			virtual = append(virtual, n.GetName()+" (Windows)")
			continue
		}
		if l := n.GetLabels(); l["type"] == "virtual-kubelet" || l["eks.amazonaws.com/compute-type"] == "fargate" {
			virtual = append(virtual, n.GetName())
			continue
		}
		if a := info("architecture"); a != "" && !slices.Contains([]string{"amd64", "arm64"}, a) {
			arch = append(arch, n.GetName()+" ("+a+")")
		}
		if major, minor, ok := number(info("kernelVersion")); ok && (major < 5 || major == 5 && minor < 2) {
			old = append(old, n.GetName()+" ("+info("kernelVersion")+")")
		}
	}
	var all []Finding
	if len(arch) > 0 {
		all = append(all, Finding{Fails, "nodes of an architecture without images: " + some(arch), "images are made for amd64 and arm64", "make and push images for it, or keep mesh pods off these nodes"})
	}
	if len(old) > 0 {
		all = append(all, Finding{Fails, "kernels too old: " + some(old), "pods are captured by nftables with address translation in the family inet, which Linux has since 5.2", "upgrade the nodes' kernels"})
	}
	if len(virtual) > 0 {
		all = append(all, Finding{Risk, "nodes on which no node agent can run: " + some(virtual), "daemon sets do not reach them: pods there stay outside of the mesh", "keep the pods that must be in the mesh off these nodes"})
	}
	return all
}

func platform(f Facts) []Finding {
	if f.Platform == "" {
		return nil
	}
	return []Finding{{Info, "platform " + f.Platform + ": " + f.PlatformWhy, "ambit install sets what it needs by itself", "with Helm: --set global.platform=" + f.Platform}}
}

// container is the environment of a daemon set's containers, and whether there is such a daemon set.
func environment(f Facts, name string) (map[string]string, bool) {
	for _, d := range f.DaemonSets {
		if d.GetName() != name {
			continue
		}
		env := map[string]string{}
		containers, _, _ := unstructured.NestedSlice(d.Object, "spec", "template", "spec", "containers")
		for _, c := range containers {
			container, _ := c.(map[string]any)
			list, _ := container["env"].([]any)
			for _, e := range list {
				v, _ := e.(map[string]any)
				key, _ := v["name"].(string)
				env[key], _ = v["value"].(string)
			}
		}
		return env, true
	}
	return nil, false
}

func cilium(f Facts) []Finding {
	if f.Cilium == nil {
		return nil
	}
	var all []Finding
	c := f.Cilium
	if c["cni-exclusive"] != "false" {
		all = append(all, Finding{
			Fails, "Cilium takes other plugins out of the node's configuration (cni-exclusive is not false)", "the mesh's plugin would be removed, and new pods would wait for it", "cilium: helm upgrade … --set cni.exclusive=false",
		})
	}
	replaces := c["kube-proxy-replacement"]
	if replaces != "" && replaces != "false" && replaces != "disabled" && c["bpf-lb-sock-hostns-only"] != "true" && c["bpf-lb-sock"] != "false" {
		all = append(all, Finding{
			Fails, "Cilium answers for Services inside of pods (kube-proxy-replacement with socket load balancing)",
			"a connection to a Service is turned to one of its pods before the mesh sees it: waypoints, routes and Service policies have no effect", "cilium: helm upgrade … --set socketLB.hostNamespaceOnly=true",
		})
	}
	if c["enable-bpf-masquerade"] == "true" {
		all = append(all, Finding{
			Risk, "Cilium masquerades by eBPF (enable-bpf-masquerade)", "probes of the kubelet come to mesh pods from 169.254.7.127, whose answers it may send elsewhere", "--set values.cni.ambient.probeSource=node, or in Cilium: helm upgrade … --set bpf.masquerade=false",
		})
	}
	if len(f.NetworkPolicies) > 0 || slices.Contains([]string{"always"}, c["enable-policy"]) {
		all = append(all, Finding{
			Risk, "Cilium, with NetworkPolicies", "it lets the kubelet's probes pass by knowing the node; to mesh pods they come from 169.254.7.127, which a policy may refuse",
			"apply a CiliumClusterwideNetworkPolicy that lets 169.254.7.127/32 (IPv6: fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128) in",
		})
	}
	return all
}

func calico(f Facts) []Finding {
	if !f.CalicoBPF {
		return nil
	}
	return []Finding{{
		Risk, "Calico's eBPF data plane", "it answers for Services when a pod connects: the mesh then sees only the pod that was chosen", "kubectl patch felixconfiguration default --type=merge -p '{\"spec\":{\"bpfConnectTimeLoadBalancing\":\"Disabled\"}}'",
	}}
}

func aws(f Facts) []Finding {
	env, ok := environment(f, "aws-node")
	if !ok || env["ENABLE_POD_ENI"] != "true" || env["POD_SECURITY_GROUP_ENFORCING_MODE"] == "standard" {
		return nil
	}
	return []Finding{{
		Risk, "Amazon's VPC CNI gives pods security groups in strict mode", "the kubelet's probes of such pods, which come from 169.254.7.127, do not arrive", "--set values.cni.ambient.probeSource=node, or kubectl set env -n kube-system daemonset/aws-node POD_SECURITY_GROUP_ENFORCING_MODE=standard",
	}}
}

func multus(f Facts) []Finding {
	for _, d := range f.DaemonSets {
		if strings.Contains(d.GetName(), "multus") && f.Platform != "openshift" {
			return []Finding{{
				Risk, fmt.Sprintf("Multus (%s/%s) starts the node's other plugins", d.GetNamespace(), d.GetName()), "the mesh's plugin must be in the configuration that it delegates to",
				"name that directory with --set values.cni.cniConfDir=…, and see in the node agent's log that it is chained",
			}}
		}
	}
	return nil
}
