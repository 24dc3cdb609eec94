package install

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/mesh"
)

func crdKind() kind { return installable()[2] }

// bare leaves the definitions out, which are most of the work.
const bare = "components.base.enabled=false"

// A second installation changes nothing, not even a resource version; and what is changed by hand is brought back.
func TestInstallTwice(t *testing.T) {
	w := newWorld(t)
	first := w.install("profile=ambient-2023", bare)
	if len(first.Changed) == 0 {
		t.Fatal("nothing was installed")
	}
	p := w.plan("profile=ambient-2023", bare)
	before := w.versions(p)
	again := w.install("profile=ambient-2023", bare)
	if len(again.Changed)+len(again.Pruned) > 0 {
		t.Errorf("a second time: changed %v, removed %v", again.Changed, again.Pruned)
	}
	if d := cmp.Diff(before, w.versions(p)); d != "" {
		t.Errorf("a second time (-first +second):\n%s", d)
	}
	if changes, err := w.Changes(t.Context(), p); err != nil || len(changes) > 0 {
		t.Errorf("would change %v, %v", changes, err)
	}

	t.Run("a foreign field manager", func(t *testing.T) {
		w.apply("somebody", `{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: ztunnel, namespace: istio-system, annotations: {theirs: kept}},
			spec: {selector: {matchLabels: {app: ztunnel}}, template: {metadata: {labels: {app: ztunnel}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: istio-proxy, image: theirs}]}}}}`)
		if changes, err := w.Changes(t.Context(), p); err != nil || !slices.Equal(changes, []string{"changes DaemonSet istio-system/ztunnel"}) {
			t.Errorf("would change %v, %v", changes, err)
		}
		if did := w.install("profile=ambient-2023", bare); !slices.Equal(did.Changed, []string{"DaemonSet istio-system/ztunnel"}) {
			t.Errorf("changed %v", did.Changed)
		}
		now := w.api.Get("apps/v1", "DaemonSet", "istio-system", "ztunnel")
		if grace := at(now.Object, "spec", "template", "spec", "terminationGracePeriodSeconds"); grace != int64(40) {
			t.Errorf("grace %v", grace)
		}
		if now.GetAnnotations()["theirs"] != "kept" {
			t.Error("an annotation of somebody else is gone")
		}
	})
	t.Run("an upgrade removes what is no longer asked for", func(t *testing.T) {
		stale, err := w.Stale(t.Context(), w.plan("profile=ambient", bare))
		if err != nil {
			t.Fatal(err)
		}
		did := w.install("profile=ambient", bare)
		if !slices.Equal(stale, did.Pruned) || !slices.Contains(did.Pruned, "Deployment istio-system/istio-ingressgateway") {
			t.Errorf("removed %v, announced %v", did.Pruned, stale)
		}
		for _, s := range did.Pruned {
			if !strings.Contains(s, "istio-ingressgateway") {
				t.Errorf("removed %s", s)
			}
		}
		if !w.has(installable()[0], "", "istio-system") {
			t.Error("the namespace is gone")
		}
	})
}

// restarts has the API server begin anew when something is waited for first.
type restarts struct {
	*reports
	again func()
}

func (r restarts) Waiting(string, int, int, string) { r.again() }

func TestInstallWhileTheAPIServerBeginsAnew(t *testing.T) {
	w := newWorld(t)
	var again sync.WaitGroup
	stopped := false
	w.Report = restarts{w.Report.(*reports), sync.OnceFunc(func() {
		stopped = true
		w.api.Stop()
		again.Go(func() {
			time.Sleep(200 * time.Millisecond) // it is looked for meanwhile
			w.api.Restart()
		})
	})}
	defer again.Wait()
	w.install()
	if !stopped {
		t.Error("nothing was waited for")
	}
}

// What another has installed is not taken over, and nothing else is touched then either.
func TestInstallBesideOthers(t *testing.T) {
	w := newWorld(t)
	w.api.Apply(`{apiVersion: v1, kind: Namespace, metadata: {name: istio-system, labels: {theirs: kept}}}`)
	w.apply("helm", `{apiVersion: v1, kind: Service, metadata: {name: istiod, namespace: istio-system, labels: {app.kubernetes.io/managed-by: Helm},
		annotations: {meta.helm.sh/release-name: istiod, meta.helm.sh/release-namespace: istio-system}}, spec: {ports: [{port: 15012}]}}`)
	w.apply("istio-operator", `{apiVersion: v1, kind: ServiceAccount, metadata: {name: ztunnel, namespace: istio-system, labels: {app: ztunnel}}}`)
	_, err := w.Install(t.Context(), w.plan("profile=ambient", bare))
	for _, want := range []string{
		"Service istio-system/istiod is there already, and of the Helm release istiod in namespace istio-system: go on with helm",
		"ServiceAccount istio-system/ztunnel is there already, and of an installation of Istio: `istioctl uninstall`",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if w.has(configMapKind(), "istio-system", "istio") {
		t.Error("something was applied all the same")
	}
	w.api.Delete("v1", "Namespace", "", "istio-system")
	for w.has(installable()[0], "", "istio-system") && t.Context().Err() == nil {
	}
	w.install("profile=minimal", bare)
}

// Definitions that others have made stay as they are, and so does the newer that was written over ours.
func TestDefinitionsOfOthers(t *testing.T) {
	w := newWorld(t)
	w.api.Define("gateway.networking.k8s.io", "HTTPRoute", "httproutes", true, "v9")
	served := func(name string) (versions []string) {
		crd := w.api.Get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", name)
		for _, v := range crd.Object["spec"].(map[string]any)["versions"].([]any) {
			versions = append(versions, v.(map[string]any)["name"].(string))
		}
		return versions
	}
	core := []string{"profile=empty", "components.base.enabled=true"}
	if did := w.install(core...); !slices.Equal(did.Left, []string{"httproutes.gateway.networking.k8s.io"}) {
		t.Errorf("left %v", did.Left)
	}
	if got := served("httproutes.gateway.networking.k8s.io"); !slices.Equal(got, []string{"v9"}) {
		t.Errorf("another's definition now serves %v", got)
	}
	if got := served("virtualservices.networking.istio.io"); !slices.Contains(got, "v1") {
		t.Errorf("VirtualService is served as %v", got)
	}
	w.api.Established("gateways.networking.istio.io")
	w.api.Apply(`{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g, namespace: default}, spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}}`)
	// The provider brings a newer bundle over ours.
	w.api.Define("gateway.networking.k8s.io", "TLSRoute", "tlsroutes", true, "v8", "v1")
	if did := w.install(core...); len(did.Changed) > 0 || len(did.Left) != 2 {
		t.Errorf("a second time: changed %v, left %v", did.Changed, did.Left)
	}
	if got := served("tlsroutes.gateway.networking.k8s.io"); !slices.Equal(got, []string{"v8", "v1"}) {
		t.Errorf("the newer definition now serves %v", got)
	}

	t.Run("purge leaves them, and the Gateway API where another product uses it", func(t *testing.T) {
		w.api.Established("gatewayclasses.gateway.networking.k8s.io")
		w.api.Apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: cloud}, spec: {controllerName: example.com/lb}}`)
		r, err := w.Removal(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range r.Definitions {
			if strings.HasSuffix(d.Name, "gateway.networking.k8s.io") {
				t.Errorf("would remove %s", d.Name)
			}
			if d.Name == "gateways.networking.istio.io" && d.Objects != 1 {
				t.Errorf("%s has %d objects", d.Name, d.Objects)
			}
		}
		if s := strings.Join(r.Stays, "\n"); !strings.Contains(s, "GatewayClass cloud is of example.com/lb") || !strings.Contains(s, "tlsroutes") {
			t.Errorf("says only %q", s)
		}
		w.api.Delete("gateway.networking.k8s.io/v1", "GatewayClass", "", "cloud")
		w.uninstall(true)
		for name, want := range map[string]bool{
			"httproutes.gateway.networking.k8s.io": true, "tlsroutes.gateway.networking.k8s.io": true,
			"gateways.gateway.networking.k8s.io": false, "virtualservices.networking.istio.io": false,
		} {
			if w.has(crdKind(), "", name) != want {
				t.Errorf("%s is there: %t", name, !want)
			}
		}
	})
}

const written = `
apiVersion: v1
kind: Secret
metadata: {name: istio-ca-secret, namespace: istio-system}
type: istio.io/ca-root
data: {ca-key.pem: eA==}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-ca-root-cert, namespace: default}
data: {root-cert.pem: x}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: ambit-leader, namespace: istio-system}
`

// Uninstalling keeps the authority's key, so that a new installation goes on with the same identities; --purge does not; and what
// others have written stays either way.
func TestUninstall(t *testing.T) {
	w := newWorld(t)
	w.install("profile=ambient")
	w.apply(manager, written)
	w.api.Apply(`{apiVersion: v1, kind: Namespace, metadata: {name: other}}`)
	w.apply("pilot-discovery", `{apiVersion: v1, kind: ConfigMap, metadata: {name: istio-ca-root-cert, namespace: other}, data: {root-cert.pem: theirs}}`)
	w.apply("pilot-discovery", `{apiVersion: v1, kind: Secret, metadata: {name: istio-ca-secret, namespace: other}, data: {ca-key.pem: eA==}}`)
	w.apply("kubectl", `{apiVersion: v1, kind: Secret, metadata: {name: cacerts, namespace: other}, data: {ca-key.pem: eA==}}`)
	w.apply("kubectl", `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict, namespace: default}, spec: {mtls: {mode: STRICT}}}`)

	w.uninstall(false)
	daemonSets := kind{"apps", "v1", "DaemonSet", "daemonsets", false}
	leases := leaseKind()
	for _, c := range []struct {
		k               kind
		namespace, name string
		want            bool
	}{
		{daemonSets, "istio-system", "ztunnel", false},
		{leases, "istio-system", mesh.LeaderLease, false},
		{configMapKind(), "default", mesh.RootConfigMap, false},
		{configMapKind(), "other", mesh.RootConfigMap, true},
		{secretKind(), "istio-system", mesh.CASecret, true},
		{secretKind(), "other", mesh.CASecret, true},
		{crdKind(), "", "peerauthentications.security.istio.io", true},
	} {
		if w.has(c.k, c.namespace, c.name) != c.want {
			t.Errorf("%s %s/%s is there: %t", c.k.name, c.namespace, c.name, !c.want)
		}
	}
	if notes := strings.Join(w.Report.(*reports).notes, "\n"); !strings.Contains(notes, "namespace istio-system stays: it has Secret istio-system/istio-ca-secret, the key of the mesh's certificate authority") {
		t.Errorf("says only %q", notes)
	}

	r := w.uninstall(true)
	if s := strings.Join(r.Stays, "\n"); !strings.Contains(s, "Secret other/istio-ca-secret: pilot-discovery has written it") {
		t.Errorf("says only %q", s)
	}
	if w.has(installable()[0], "", "istio-system") || w.has(crdKind(), "", "peerauthentications.security.istio.io") {
		t.Error("the namespace or a definition is left over")
	}
	for _, name := range []string{mesh.CASecret, "cacerts"} {
		if !w.has(secretKind(), "other", name) {
			t.Errorf("another's Secret %s is gone", name)
		}
	}
	if r, err := w.Removal(t.Context(), true); err != nil || !r.Empty() {
		t.Errorf("left over: %+v, %v", r, err)
	}
}

// Things go in an order in which no pod loses its traffic: what judges new objects, what captures, what carries, the rights last. A
// webhook whose backend is gone judges nothing that an uninstallation does, and what is gone already is no obstacle.
func TestUninstallOfWhatIsBroken(t *testing.T) {
	w := newWorld(t)
	w.install("profile=default", bare)
	w.apply(manager, written)
	w.api.Delete("apps/v1", "Deployment", "istio-system", "istiod")
	w.api.Delete("v1", "Service", "istio-system", "istiod")
	w.api.Delete("v1", "ServiceAccount", "istio-system", "ztunnel")
	w.apply(manager, `{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: hook, labels: {app.kubernetes.io/managed-by: ambit}},
		webhooks: [{name: validation.istio.io, failurePolicy: Fail, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {service: {name: istiod, namespace: istio-system}},
			rules: [{apiGroups: ["*"], apiVersions: ["*"], resources: ["*"], operations: ["*"]}]}]}`)
	r, err := w.Removal(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	position := map[string]int{}
	for n, o := range r.Objects {
		position[describe(&o)] = n
	}
	order := []string{
		"ValidatingWebhookConfiguration hook", "DaemonSet istio-system/istio-cni-node", "HorizontalPodAutoscaler istio-system/istio-ingressgateway",
		"DaemonSet istio-system/ztunnel", "ClusterRoleBinding istio-cni",
	}
	for n, name := range order {
		if _, ok := position[name]; !ok {
			t.Fatalf("%s is not among %v", name, position)
		}
		if n > 0 && position[name] < position[order[n-1]] {
			t.Errorf("%s goes before %s", name, order[n-1])
		}
	}
	w.uninstall(true)
	if r, err = w.Removal(t.Context(), true); err != nil || !r.Empty() {
		t.Errorf("left over: %+v, %v", r, err)
	}
}
