package precheck

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/mesh"
)

func refused(f Facts) []Finding {
	var all []Finding
	for _, name := range slices.Sorted(maps.Keys(f.Refused)) {
		said := f.Refused[name]
		if strings.Contains(said, "PodSecurity") && len(security(f)) > 0 {
			continue // said there, and shorter
		}
		do := "have whoever set that rule except namespace " + f.Namespace
		switch {
		case strings.Contains(said, "PodSecurity"):
			do = "kubectl label namespace " + f.Namespace + " --overwrite pod-security.kubernetes.io/enforce=privileged"
		case strings.Contains(said, "quota"):
			do = "--set values.global.platform=gke adds a ResourceQuota for system-node-critical pods"
		}
		all = append(all, Finding{Fails, "the API server would not take pods of " + name + ": " + said, "they work in the network of the node and of pods", do})
	}
	return all
}

func security(f Facts) []Finding {
	for _, ns := range f.Namespaces {
		level := ns.GetLabels()["pod-security.kubernetes.io/enforce"]
		if ns.GetName() != f.Namespace || level == "" || level == "privileged" {
			continue
		}
		return []Finding{{
			Fails, fmt.Sprintf("namespace %s enforces the pod security level %s", f.Namespace, level),
			"node agent and ztunnel need the capabilities NET_ADMIN and SYS_ADMIN and directories of the node",
			"kubectl label namespace " + f.Namespace + " --overwrite pod-security.kubernetes.io/enforce=privileged",
		}}
	}
	return nil
}

// blocks reports whether a direction of a policy admits some ports and not the mesh's.
func blocks(policy *Object, direction string) bool {
	rules, _, _ := unstructured.NestedSlice(policy.Object, "spec", direction)
	limited := false
	for _, r := range rules {
		rule, _ := r.(map[string]any)
		ports, _ := rule["ports"].([]any)
		if len(ports) == 0 {
			return false // every port
		}
		limited = true
		for _, p := range ports {
			if port, _ := p.(map[string]any); admits(port) {
				return false
			}
		}
	}
	return limited
}

func admits(port map[string]any) bool {
	if protocol, _ := port["protocol"].(string); protocol != "" && protocol != "TCP" {
		return false
	}
	from, ok := integer(port["port"])
	if !ok {
		return port["port"] == nil // a name is never 15008: no container has that port
	}
	to, ok := integer(port["endPort"])
	return from == mesh.PortHBONE || ok && from <= mesh.PortHBONE && mesh.PortHBONE <= to
}

func integer(v any) (int, bool) {
	switch v := v.(type) {
	case int64:
		return int(v), true
	case float64:
		return int(v), true
	}
	return 0, false
}

func policies(f Facts) []Finding {
	var in, out, system []string
	for _, p := range f.NetworkPolicies {
		name := p.GetNamespace() + "/" + p.GetName()
		switch {
		case p.GetNamespace() == "kube-system":
			continue
		case p.GetNamespace() == f.Namespace:
			if p.GetLabels()["app.kubernetes.io/part-of"] != "ambit" {
				system = append(system, name)
			}
			continue
		}
		if blocks(&p, "ingress") {
			in = append(in, name)
		}
		if blocks(&p, "egress") {
			out = append(out, name)
		}
	}
	var all []Finding
	why := fmt.Sprintf("what pods of the mesh say to each other arrives at port %d, whatever port the application has", mesh.PortHBONE)
	if len(in) > 0 {
		all = append(all, Finding{Risk, "NetworkPolicies let nothing in at port 15008: " + some(in), why, "in the namespaces that join, add {port: 15008, protocol: TCP} to their ingress ports"})
	}
	if len(out) > 0 {
		all = append(all, Finding{Risk, "NetworkPolicies let nothing out to port 15008: " + some(out), why, "in the namespaces that join, add {port: 15008, protocol: TCP} to their egress ports"})
	}
	if len(system) > 0 {
		all = append(all, Finding{
			Risk, "NetworkPolicies in the mesh's own namespace: " + some(system), "proxies reach the control plane at 15012, the API server its webhook at 15017, ztunnel needs the names service",
			"see that they let these pass; values.global.networkPolicy.enabled=true brings the mesh's own",
		})
	}
	return all
}

func hostNetwork(f Facts) []Finding {
	in := map[string]bool{}
	for _, ns := range f.Namespaces {
		in[ns.GetName()] = ns.GetLabels()[mesh.LabelDataplaneMode] == "ambient"
	}
	var names []string
	for _, p := range append(slices.Clone(f.HostNetwork), f.Labelled...) {
		host, _, _ := unstructured.NestedBool(p.Object, "spec", "hostNetwork")
		if mode := p.GetLabels()[mesh.LabelDataplaneMode]; host && (mode == "ambient" || mode == "" && in[p.GetNamespace()]) {
			names = append(names, p.GetNamespace()+"/"+p.GetName())
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []Finding{{Risk, "pods in the network of their node, and labelled: " + some(names), "they have no network of their own that could be captured: they stay outside of the mesh", "run them without hostNetwork, or label them istio.io/dataplane-mode=none so that nobody counts on it"}}
}
