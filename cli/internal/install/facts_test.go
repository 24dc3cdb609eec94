package install

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cli/internal/precheck"
)

// What decides is read from a real API server, which tries pods itself and says what an account may.
func TestFacts(t *testing.T) {
	w := newWorld(t)
	w.api.Apply(`
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system, labels: {pod-security.kubernetes.io/enforce: baseline}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: web}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: istio-system}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: someone, namespace: web}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reader}, rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: reader}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}, subjects: [{kind: ServiceAccount, name: someone, namespace: web}]}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: cilium-config, namespace: kube-system}, data: {cni-exclusive: "false"}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: web}, spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: host, namespace: web, labels: {istio.io/dataplane-mode: ambient}}, spec: {hostNetwork: true, serviceAccountName: someone, automountServiceAccountToken: false, containers: [{name: c, image: i}]}}
`)
	w.api.Define("security.istio.io", "AuthorizationPolicy", "authorizationpolicies", true, "v1beta1")
	p := w.plan("profile=ambient")
	const ztunnel = "DaemonSet istio-system/ztunnel"
	var facts precheck.Facts
	var err error
	// The API server judges pods only once it has seen the account and the namespace itself.
	for end := time.Now().Add(time.Minute); (facts.Refused[ztunnel] == "" || len(facts.Unknown) > 0) && time.Now().Before(end); {
		if facts, err = w.Facts(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.HasPrefix(facts.Version, "v1.") || len(facts.Forbidden)+len(facts.Unknown)+len(facts.Foreign) > 0 {
		t.Errorf("found %q, forbidden %v, unknown %v, of others %v", facts.Version, facts.Forbidden, facts.Unknown, facts.Foreign)
	}
	var said []string
	for _, f := range precheck.Check(facts) {
		said = append(said, f.What)
	}
	for _, want := range []string{
		"enforces the pod security level baseline", "authorizationpolicies.security.istio.io of others does not serve v1", "Cilium, with NetworkPolicies",
		"nothing in at port 15008: web/p", "labelled: web/host",
	} {
		if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("nothing says %q among %q", want, said)
		}
	}
	if s := facts.Refused[ztunnel]; !strings.Contains(s, "NET_ADMIN") {
		t.Errorf("the API server says of ztunnel's pods %q", s)
	}

	cluster, err := New(w.api.As(w.api.Token("web", "someone", "", "https://kubernetes.default.svc.cluster.local", time.Hour)), "test")
	if err != nil {
		t.Fatal(err)
	}
	facts, err = (&Installer{Cluster: cluster}).Facts(t.Context(), w.plan("profile=ambient", bare))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"create clusterroles.rbac.authorization.k8s.io", "patch daemonsets.apps", "delete services"} {
		if !slices.Contains(facts.Forbidden, want) {
			t.Errorf("%q is not among what may not be done: %v", want, facts.Forbidden)
		}
	}
	if slices.Contains(facts.Forbidden, "get services") {
		t.Error("reading is forbidden")
	}
}
