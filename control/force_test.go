package control_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1alpha1 "istio.io/api/meta/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/delta"
)

func denying(generation int, who string) string {
	return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no, namespace: default, generation: %d}\nspec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{from: [{source: {namespaces: [%s]}}]}]}\n", generation, who)
}

// condition is what the status of an object says under a type.
func (m *memory) condition(kind, key, typ string) *metav1alpha1.IstioCondition {
	k, _ := kinds.Find(kind)
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*metav1alpha1.IstioCondition
	switch o := m.status[ref(source.Ref{Kind: k, Key: key})].(type) {
	case *securityv1.AuthorizationPolicy:
		all = o.Status.Conditions
	case *securityv1.PeerAuthentication:
		all = o.Status.Conditions
	case *networkingv1.ServiceEntry:
		all = o.Status.Conditions
	case *networkingv1.WorkloadEntry:
		all = o.Status.Conditions
	}
	for _, c := range all {
		if c.GetType() == typ {
			return c
		}
	}
	return nil
}

func (v *virtual) inForce(what, status, text string) {
	v.t.Helper()
	kind, key, _ := strings.Cut(what, " ")
	c := v.cluster.condition(kind, key, "ambit.io/InForce")
	if c.GetStatus() != status || !strings.Contains(c.GetMessage(), text) {
		v.t.Errorf("%v: %s: %s %q, want %s %q", time.Now().Format("15:04:05"), what, c.GetStatus(), c.GetMessage(), status, text)
	}
}

// Every policy and entry says on which node proxies it is in force: all, or which not and why. Lagging for a moment is no news.
func TestInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := startVirtual(t, newMemory(t, cluster+"---\n"+denying(1, "bad")+`---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: default}
spec: {hosts: [api.example.com], addresses: [1.2.3.4], resolution: STATIC, ports: [{number: 80, name: http}], endpoints: [{address: 9.9.9.9}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: default}
spec: {address: 9.9.9.8}
`), func(c *control.Config) {
			all := callers()
			all["z2"] = source.Caller{Namespace: "istio-system", ServiceAccount: "ztunnel", Pod: "ztunnel-2", PodUID: "z2", Node: "node-2"}
			c.Callers = all
		})
		all := []string{"authorizationpolicy default/no", "peerauthentication default/default", "serviceentry default/api", "workloadentry default/vm"}
		time.Sleep(5 * time.Second)
		for _, what := range all {
			v.inForce(what, "False", "in force on 0 of 1 node proxies; not on ztunnel-1.istio-system (not connected)")
		}
		one := v.subscribe("z1", ztunnelNode)
		defer one.end()
		time.Sleep(time.Second)
		for _, what := range all {
			v.inForce(what, "True", "in force on the one node proxy")
		}

		// A new node: told only once its proxy has had its time.
		v.cluster.put(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: ztunnel-2, namespace: istio-system, uid: z2}\nspec: {nodeName: node-2, serviceAccountName: ztunnel, containers: [{name: a, image: a}]}\nstatus: {phase: Running, podIP: 10.244.2.2}\n")
		time.Sleep(2 * time.Second)
		v.inForce(all[0], "True", "")
		time.Sleep(3 * time.Second)
		v.inForce(all[0], "False", "in force on 1 of 2 node proxies; not on ztunnel-2.istio-system (not connected)")
		two := v.subscribe("z2", strings.ReplaceAll(ztunnelNode, "ztunnel-1", "ztunnel-2"))
		defer two.end()
		time.Sleep(time.Second)
		v.inForce(all[0], "True", "on all 2 node proxies")

		// It refuses a change: told at once, with its reason, and only of what it refused.
		two.nack = func(r *delta.Response) string {
			if r.GetTypeUrl() == mesh.TypeAuthorization && len(r.GetResources()) > 0 {
				return "namespaces are not understood"
			}
			return ""
		}
		v.cluster.put(t, denying(2, "worse"))
		time.Sleep(200 * time.Millisecond)
		v.inForce(all[0], "False", "in force on 1 of 2 node proxies; not on ztunnel-2.istio-system (refused it: namespaces are not understood)")
		if c := v.cluster.condition("authorizationpolicy", "default/no", "ambit.io/InForce"); c.GetReason() != "Refused" || c.GetObservedGeneration() != 2 {
			t.Errorf("condition %v", c)
		}
		v.inForce(all[2], "True", "")
		two.nack = nil
		v.cluster.put(t, denying(3, "worst"))
		time.Sleep(200 * time.Millisecond)
		v.inForce(all[0], "True", "on all 2 node proxies")

		// A workload that nobody guards is told of, once it has had its time to join.
		bare := "apiVersion: v1\nkind: Pod\nmetadata: {name: web-2, namespace: default, uid: w2, labels: {app: web}ANNOTATED}\nspec: {nodeName: node-2, serviceAccountName: web, containers: [{name: a, image: a}]}\nstatus: {phase: Running, podIP: 10.244.2.9}\n"
		v.cluster.put(t, strings.ReplaceAll(bare, "ANNOTATED", ""))
		time.Sleep(2 * time.Second)
		v.inForce(all[0], "True", "on all 2 node proxies")
		time.Sleep(3 * time.Second)
		v.inForce(all[0], "False", "nothing enforces it for 1 of the 2 workloads that it selects, as they are not in the mesh: default/web-2;")
		v.cluster.put(t, strings.ReplaceAll(bare, "ANNOTATED", ", annotations: {ambient.istio.io/redirection: enabled}"))
		time.Sleep(200 * time.Millisecond)
		v.inForce(all[0], "True", "on all 2 node proxies")
		k, _ := kinds.Find("pod")
		if err := v.cluster.Delete(t.Context(), k, "default", "web-2"); err != nil {
			t.Fatal(err)
		}

		// Ten changes a second are no reason to say anything else in between.
		writes, since := v.cluster.writes, v.cluster.condition("authorizationpolicy", "default/no", "ambit.io/InForce").GetLastTransitionTime()
		for i := range 50 {
			v.cluster.put(t, denying(4+i, fmt.Sprint("n", i)))
			time.Sleep(100 * time.Millisecond)
			v.inForce(all[0], "True", "")
		}
		time.Sleep(time.Second)
		if now := v.cluster.condition("authorizationpolicy", "default/no", "ambit.io/InForce"); now.GetLastTransitionTime().AsTime() != since.AsTime() || now.GetObservedGeneration() != 53 {
			t.Errorf("it flapped: %v, since %v", now, since.AsTime())
		}
		t.Logf("50 changes led to %d writes of status", v.cluster.writes-writes)

		// A restart finds everything as it was, and says nothing new.
		one.end()
		two.end()
		v.stop()
		again := v.cluster.again()
		before := again.writes
		w := startVirtual(t, again, nil)
		time.Sleep(time.Second)
		three := w.subscribe("z1", ztunnelNode)
		defer three.end()
		w.cluster.put(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: ztunnel-2, namespace: istio-system, uid: z2}\nspec: {nodeName: node-2, serviceAccountName: ztunnel, containers: [{name: a, image: a}]}\nstatus: {phase: Succeeded}\n")
		time.Sleep(5 * time.Second)
		w.inForce(all[0], "True", "on the one node proxy")
		if now := w.cluster.condition("authorizationpolicy", "default/no", "ambit.io/InForce"); now.GetLastTransitionTime().AsTime() != since.AsTime() {
			t.Errorf("it is since %v, not %v", now.GetLastTransitionTime().AsTime(), since.AsTime())
		}
		if n := again.writes - before; n != len(all) {
			t.Errorf("%d writes of status after a restart, want one for each object: there is one proxy less", n)
		}
	})
}
