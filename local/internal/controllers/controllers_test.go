package controllers

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

const nodes = `
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {node-role.kubernetes.io/control-plane: ""}}
spec: {taints: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]}
status: {conditions: [{type: Ready, status: "True"}], addresses: [{type: InternalIP, address: 10.89.0.11}]}
---
apiVersion: v1
kind: Node
metadata: {name: node-2}
status: {conditions: [{type: Ready, status: "True"}], addresses: [{type: InternalIP, address: 10.89.0.12}]}
---
apiVersion: v1
kind: Node
metadata: {name: node-3}
status: {conditions: [{type: Ready, status: "True"}], addresses: [{type: InternalIP, address: 10.89.0.13}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: default}
`

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: echo, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
`

// cluster is a store, the controllers, and a kubelet that makes pods run.
type cluster struct {
	*testing.T
	store *store.Store
	c     *Controllers
	ips   int
}

func newCluster(t *testing.T) *cluster {
	s, err := store.Open(store.Config{Objects: filepath.Join(t.TempDir(), "objects"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{T: t, store: s, c: New(Config{Store: s, RootCA: []byte("root"), Log: slog.New(slog.DiscardHandler)})}
	all, err := kinds.Decode("nodes.yaml", []byte(nodes))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all { // created, not applied: their status is the kubelet's word
		if _, err := s.Create(o.Object); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) apply(text string) {
	c.Helper()
	all, err := kinds.Decode("test.yaml", []byte(text))
	if err != nil {
		c.Fatal(err)
	}
	for _, o := range all {
		if _, _, err := c.store.Apply(o.Object); err != nil {
			c.Fatal(err)
		}
	}
}

// settle reconciles, with kubelet's part between the passes, until nothing changes. check sees every state on the way.
func (c *cluster) settle(check func()) {
	c.Helper()
	for range 100 {
		before := c.store.Revision()
		if err := c.c.Reconcile(); err != nil {
			c.Fatal(err)
		}
		if check != nil {
			check()
		}
		c.kubelet()
		if c.store.Revision() == before {
			return
		}
	}
	c.Fatal("the cluster never comes to rest")
}

// kubelet makes one pod ready and lets one that is deleted go, so that rollouts are seen step by step.
func (c *cluster) kubelet() {
	for _, p := range store.List[*corev1.Pod](c.store, "") {
		switch {
		case p.Spec.NodeName == "":
		case p.DeletionTimestamp != nil:
			if err := c.store.Delete(kinds.Of(p), p.Namespace, p.Name, store.DeleteOptions{Grace: new(time.Duration)}); err != nil {
				c.Fatal(err)
			}
			return
		case !ready(p):
			c.ips++
			ip := fmt.Sprintf("10.244.0.%d", c.ips)
			err := update(c.c, p, func(p *corev1.Pod) {
				p.Status.Phase, p.Status.PodIP, p.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
			})
			if err != nil {
				c.Fatal(err)
			}
			return
		}
	}
}

func (c *cluster) pods() []*corev1.Pod { return store.List[*corev1.Pod](c.store, "default") }

func get[T kinds.Object](c *cluster, ns, name string) T {
	c.Helper()
	o, err := store.Get[T](c.store, ns, name)
	if err != nil {
		c.Fatal(err)
	}
	return o
}

func TestDeploymentBecomesPodsOnWorkers(t *testing.T) {
	c := newCluster(t)
	c.apply(web)
	c.settle(nil)
	on := map[string]int{}
	for _, p := range c.pods() {
		on[p.Spec.NodeName]++
		if !strings.HasPrefix(p.Name, "web-") || p.Labels["pod-template-hash"] == "" {
			t.Errorf("pod %s with labels %v", p.Name, p.Labels)
		}
	}
	if on["node-2"] != 2 || on["node-3"] != 2 || len(on) != 2 {
		t.Errorf("pods on %v, want two on each worker", on)
	}
	if s := get[*appsv1.Deployment](c, "default", "web").Status; s.AvailableReplicas != 4 || s.UpdatedReplicas != 4 || s.Replicas != 4 {
		t.Errorf("status %+v", s)
	}
	svc := get[*corev1.Service](c, "default", "web")
	if !strings.HasPrefix(svc.Spec.ClusterIP, "10.96.") {
		t.Errorf("service address %q", svc.Spec.ClusterIP)
	}
	slices_ := store.List[*discoveryv1.EndpointSlice](c.store, "default")
	if len(slices_) != 1 || len(slices_[0].Endpoints) != 4 || *slices_[0].Ports[0].Port != 8080 || !*slices_[0].Endpoints[0].Conditions.Ready {
		t.Errorf("endpoint slices %+v", slices_)
	}
	get[*corev1.ServiceAccount](c, "default", "default")
	if cm := get[*corev1.ConfigMap](c, "default", "kube-root-ca.crt"); cm.Data["ca.crt"] != "root" {
		t.Errorf("root %v", cm.Data)
	}
}

func TestRolloutKeepsThePromisedPods(t *testing.T) {
	c := newCluster(t)
	c.apply(web)
	c.settle(nil)
	old := map[string]bool{}
	for _, p := range c.pods() {
		old[p.Name] = true
	}
	d := get[*appsv1.Deployment](c, "default", "web")
	if err := update(c.c, d, func(d *appsv1.Deployment) { d.Spec.Template.Annotations = map[string]string{"restartedAt": "now"} }); err != nil {
		t.Fatal(err)
	}
	c.settle(func() { // 25 % of 4: at most 5 pods, at least 3 ready
		n, up := 0, 0
		for _, p := range c.pods() {
			if active(p) {
				n++
				if ready(p) {
					up++
				}
			}
		}
		if n > 5 || up < 3 {
			t.Errorf("during the rollout %d pods, %d ready", n, up)
		}
	})
	for _, p := range c.pods() {
		if old[p.Name] {
			t.Errorf("pod %s is of the old template", p.Name)
		}
	}
	if n := len(c.pods()); n != 4 {
		t.Errorf("%d pods, want 4", n)
	}
}

func TestScaleAndDelete(t *testing.T) {
	c := newCluster(t)
	c.apply(web)
	c.settle(nil)
	for _, n := range []int32{1, 6, 0} {
		d := get[*appsv1.Deployment](c, "default", "web")
		if err := update(c.c, d, func(d *appsv1.Deployment) { d.Spec.Replicas = &n }); err != nil {
			t.Fatal(err)
		}
		c.settle(nil)
		if got := len(c.pods()); got != int(n) {
			t.Errorf("scaled to %d: %d pods", n, got)
		}
	}
	d := get[*appsv1.Deployment](c, "default", "web")
	if err := c.c.remove(d, nil); err != nil {
		t.Fatal(err)
	}
	c.settle(nil)
	if n := len(store.List[*appsv1.ReplicaSet](c.store, "default")); n != 0 {
		t.Errorf("%d replica sets outlived their deployment", n)
	}
}

func TestDaemonSetRunsWhereItIsToleratedAndRollsBySurge(t *testing.T) {
	c := newCluster(t)
	const ds = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: default}
spec:
  updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {tolerations: [%s], containers: [{name: a, image: echo}]}
`
	c.apply(fmt.Sprintf(ds, ""))
	c.settle(nil)
	if s := get[*appsv1.DaemonSet](c, "default", "agent").Status; s.DesiredNumberScheduled != 2 || s.NumberReady != 2 {
		t.Errorf("without toleration: %+v", s)
	}
	c.apply(fmt.Sprintf(ds, "{operator: Exists}"))
	c.settle(func() {
		up := map[string]bool{}
		for _, p := range c.pods() {
			if ready(p) && p.DeletionTimestamp == nil {
				up[p.Spec.NodeName] = true
			}
		}
		if !up["node-2"] || !up["node-3"] {
			t.Errorf("during the rollout ready only on %v", up)
		}
		s := get[*appsv1.DaemonSet](c, "default", "agent").Status
		for _, p := range c.pods() {
			if s.UpdatedNumberScheduled == 3 && s.NumberReady == 3 && !ready(p) {
				t.Errorf("it counts as rolled out while %s is not ready", p.Name)
			}
		}
	})
	if s := get[*appsv1.DaemonSet](c, "default", "agent").Status; s.DesiredNumberScheduled != 3 || s.NumberReady != 3 || s.UpdatedNumberScheduled != 3 {
		t.Errorf("with toleration: %+v", s)
	}
	if n := len(c.pods()); n != 3 {
		t.Errorf("%d pods, want 3", n)
	}
}

func TestUnschedulablePodSaysWhy(t *testing.T) {
	c := newCluster(t)
	c.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default}\nspec: {nodeSelector: {disk: ssd}, containers: [{name: a, image: echo}]}\n")
	c.settle(nil)
	p := get[*corev1.Pod](c, "default", "p")
	if p.Spec.NodeName != "" || !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Reason == corev1.PodReasonUnschedulable && strings.Contains(c.Message, "it lacks the label disk=ssd")
	}) {
		t.Errorf("on %q, conditions %+v", p.Spec.NodeName, p.Status.Conditions)
	}
}

func TestLoadBalancerAndNamespaceDeletion(t *testing.T) {
	c := newCluster(t)
	c.apply(`
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: in, namespace: shop}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: in2, namespace: shop}
spec: {type: LoadBalancer, ports: [{port: 80}]}
`)
	c.settle(nil)
	a, b := get[*corev1.Service](c, "shop", "in"), get[*corev1.Service](c, "shop", "in2")
	if len(a.Status.LoadBalancer.Ingress) != 1 || len(b.Status.LoadBalancer.Ingress) != 1 ||
		a.Status.LoadBalancer.Ingress[0].IP == b.Status.LoadBalancer.Ingress[0].IP || a.Spec.Ports[0].NodePort == b.Spec.Ports[0].NodePort {
		t.Errorf("%+v and %+v share an address or a port", a.Status, b.Status)
	}
	ns := get[*corev1.Namespace](c, "", "shop")
	if err := c.c.remove(ns, nil); err != nil {
		t.Fatal(err)
	}
	c.settle(nil)
	if left := store.List[*corev1.ServiceAccount](c.store, "shop"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := store.Get[*corev1.Namespace](c.store, "", "shop"); err == nil {
		t.Error("the namespace is still there")
	}
}
