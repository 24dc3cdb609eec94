package precheck

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func object(t *testing.T, text string) Object {
	t.Helper()
	var o Object
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestCheck(t *testing.T) {
	list := func(texts ...string) (all []Object) {
		for _, text := range texts {
			all = append(all, object(t, text))
		}
		return all
	}
	policy := func(spec string) Facts {
		return Facts{Namespace: "istio-system", NetworkPolicies: list(`{metadata: {name: p, namespace: web}, spec: ` + spec + `}`)}
	}
	crd := func(name, versions string) Object {
		return object(t, `{metadata: {name: `+name+`}, spec: {versions: [`+versions+`]}}`)
	}
	v := func(version, properties string) string {
		return `{name: ` + version + `, served: true, schema: {openAPIV3Schema: {properties: {spec: {properties: ` + properties + `}}}}}`
	}
	definition := func(theirs, ours Object) Facts {
		return Facts{Definitions: []Definition{{Theirs: &theirs, Ours: &ours}}}
	}
	for _, c := range []struct {
		name  string
		facts Facts
		level Level
		want  string // of the first finding; none if empty
	}{
		{"a cluster in good order", Facts{Version: "v1.34.4", Nodes: list(`{metadata: {name: a}, status: {nodeInfo: {architecture: arm64, kernelVersion: 5.15.0-91-generic, operatingSystem: linux}}}`)}, 0, ""},
		{"an old API server", Facts{Version: "v1.27.16-eks-1"}, Fails, "Kubernetes v1.27.16-eks-1"},
		{"an API server of another kind", Facts{Version: "unknown"}, 0, ""},
		{"rights that are missing", Facts{Forbidden: []string{"create clusterroles.rbac.authorization.k8s.io"}}, Fails, "create clusterroles"},
		{"an installation by others", Facts{Foreign: []string{"Service istio-system/istiod is there already"}}, Fails, "Service istio-system/istiod"},
		{"another control plane", Facts{Namespace: "istio-system", Deployments: list(`{metadata: {name: istiod, namespace: mesh, labels: {app: istiod}}}`)}, Fails, "mesh/istiod"},
		{"our own control plane", Facts{Namespace: "istio-system", Deployments: list(`{metadata: {name: istiod, namespace: istio-system, labels: {app: istiod}}}`)}, 0, ""},
		{"namespaces with sidecars", Facts{Namespaces: list(`{metadata: {name: old, labels: {istio-injection: enabled}}}`)}, Info, "sidecars: old"},
		{"a definition without our version", definition(crd("a", v("v1beta1", "{}")), crd("a", v("v1", "{}")+","+v("v1beta1", "{}"))), Fails, "does not serve v1"},
		{"a definition without a field", definition(crd("a", v("v1", "{x: {}}")), crd("a", v("v1", "{x: {}, b: {items: {properties: {z: {}}}}}"))), Risk, "lacks 2 fields, such as v1 spec.b"},
		{"a definition that keeps all", definition(crd("a", `{name: v1, served: true, schema: {openAPIV3Schema: {properties: {spec: {x-kubernetes-preserve-unknown-fields: true}}}}}`), crd("a", v("v1", "{x: {items: {properties: {z: {}}}}}"))), 0, ""},
		{"a definition that keeps all of another field", definition(crd("a", v("v1", "{b: {x-kubernetes-preserve-unknown-fields: true}}")), crd("a", v("v1", "{b: {properties: {z: {}}}, x: {properties: {y: {}}}}"))), Risk, "lacks 2 fields, such as v1 spec.x"},
		{"a newer definition", definition(crd("a", v("v1", "{x: {}, b: {}}")), crd("a", v("v1", "{x: {}}"))), 0, ""},
		{
			"a namespace for restricted pods",
			Facts{Namespace: "istio-system", Namespaces: list(`{metadata: {name: istio-system, labels: {pod-security.kubernetes.io/enforce: baseline}}}`), Refused: map[string]string{"DaemonSet a": `violates PodSecurity "baseline"`}},
			Fails, "enforces the pod security level baseline",
		},
		{"a quota", Facts{Refused: map[string]string{"DaemonSet a": "insufficient quota to match these scopes"}}, Fails, "insufficient quota"},
		{"another architecture", Facts{Nodes: list(`{metadata: {name: a}, status: {nodeInfo: {architecture: s390x}}}`)}, Fails, "a (s390x)"},
		{"an old kernel", Facts{Nodes: list(`{metadata: {name: a}, status: {nodeInfo: {kernelVersion: 4.18.0-553.el8_10.x86_64}}}`)}, Fails, "4.18.0"},
		{"a node that is none", Facts{Nodes: list(`{metadata: {name: a, labels: {type: virtual-kubelet}}}`)}, Risk, "no node agent can run: a"},
		{"a platform", Facts{Platform: "k3s", PlatformWhy: "node a runs v1.34.1+k3s1"}, Info, "platform k3s"},
		{"Cilium as it comes", Facts{Cilium: map[string]string{}}, Fails, "cni-exclusive"},
		{"Cilium for Services", Facts{Cilium: map[string]string{"cni-exclusive": "false", "kube-proxy-replacement": "true"}}, Fails, "socket load balancing"},
		{"Cilium as it should be", Facts{Cilium: map[string]string{"cni-exclusive": "false", "kube-proxy-replacement": "true", "bpf-lb-sock-hostns-only": "true"}}, 0, ""},
		{"Cilium that masquerades", Facts{Cilium: map[string]string{"cni-exclusive": "false", "enable-bpf-masquerade": "true"}}, Risk, "masquerades"},
		{"Calico's eBPF", Facts{CalicoBPF: true}, Risk, "Calico"},
		{"security groups for pods", Facts{DaemonSets: list(`{metadata: {name: aws-node}, spec: {template: {spec: {containers: [{env: [{name: ENABLE_POD_ENI, value: "true"}]}]}}}}`)}, Risk, "strict mode"},
		{"security groups in standard mode", Facts{DaemonSets: list(`{metadata: {name: aws-node}, spec: {template: {spec: {containers: [{env: [{name: ENABLE_POD_ENI, value: "true"}, {name: POD_SECURITY_GROUP_ENFORCING_MODE, value: standard}]}]}}}}`)}, 0, ""},
		{"Multus", Facts{DaemonSets: list(`{metadata: {name: kube-multus-ds, namespace: kube-system}}`)}, Risk, "kube-multus-ds"},
		{"a policy without the mesh's port", policy(`{ingress: [{ports: [{port: 80}]}]}`), Risk, "nothing in at port 15008: web/p"},
		{"a policy with a named port", policy(`{ingress: [{ports: [{port: http}]}]}`), Risk, "nothing in"},
		{"a policy for UDP", policy(`{egress: [{ports: [{port: 15008, protocol: UDP}]}]}`), Risk, "nothing out"},
		{"a policy with the mesh's port", policy(`{ingress: [{ports: [{port: 80}, {port: 15008}]}]}`), 0, ""},
		{"a policy with a range", policy(`{ingress: [{ports: [{port: 1024, endPort: 65535}]}]}`), 0, ""},
		{"a policy of peers", policy(`{ingress: [{ports: [{port: 80}]}, {from: [{podSelector: {}}]}]}`), 0, ""},
		{"a policy that forbids all", policy(`{podSelector: {}, policyTypes: [Ingress]}`), 0, ""},
		{
			"a pod in its node's network", Facts{Labelled: list(`{metadata: {name: p, namespace: web, labels: {istio.io/dataplane-mode: ambient}}, spec: {hostNetwork: true}}`)}, Risk, "web/p",
		},
		{
			"one in a namespace of the mesh", Facts{Namespaces: list(`{metadata: {name: web, labels: {istio.io/dataplane-mode: ambient}}}`), HostNetwork: list(`{metadata: {name: p, namespace: web}, spec: {hostNetwork: true}}`)}, Risk, "web/p",
		},
		{"one elsewhere", Facts{HostNetwork: list(`{metadata: {name: p, namespace: web}, spec: {hostNetwork: true}}`)}, 0, ""},
		{"what may not be read", Facts{Unknown: []string{"nodes: forbidden"}}, Risk, "not looked at: nodes: forbidden"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Check(c.facts)
			if c.want == "" {
				if len(got) > 0 {
					t.Errorf("found %+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Level != c.level || !strings.Contains(got[0].What, c.want) || got[0].Why == "" || got[0].Do == "" {
				t.Errorf("found %+v, want one of level %d with %q", got, c.level, c.want)
			}
		})
	}
	got := Check(Facts{Platform: "gke", CalicoBPF: true, Version: "v1.20.0"})
	if len(got) != 3 || got[0].Level != Fails || got[2].Level != Info {
		t.Errorf("not the worst first: %+v", got)
	}
}
