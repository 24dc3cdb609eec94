package install

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
	"github.com/ambit-mesh/ambit/manifests"
)

// world is a real API server, and an installer for it.
type world struct {
	*Installer
	t   *testing.T
	api *kubeapi.Server
	any dynamic.Interface
}

// reports keeps what an installation says.
type reports struct {
	mu    sync.Mutex // guards below
	notes []string
	steps []string
}

func (r *reports) Waiting(string, int, int, string) {}

func (r *reports) Done(s Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, s.Name)
}

func (r *reports) Note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, text)
}

// newWorld starts an API server on which somebody does what Kubernetes' controllers would do that an installation waits for.
func newWorld(t *testing.T) *world {
	t.Helper()
	api := kubeapi.Start(t)
	cluster, err := New(api.Config, "test")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Installer: &Installer{Cluster: cluster, Report: &reports{}, Within: 2 * time.Minute, Every: 50 * time.Millisecond}, t: t, api: api}
	if w.any, err = dynamic.NewForConfig(api.Config); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { w.control(ctx) })
	t.Cleanup(func() { stop(); ended.Wait() })
	return w
}

// control makes workloads ready and empties namespaces that are deleted.
func (w *world) control(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, k := range []kind{{"apps", "v1", "Deployment", "deployments", false}, {"apps", "v1", "DaemonSet", "daemonsets", false}} {
			items, err := w.Cluster.list(ctx, k, "", "")
			for i := range items {
				w.ready(ctx, k, &items[i])
			}
			_ = err // the server may be on its way up or down: the next round tells
		}
		items, _ := w.Cluster.list(ctx, installable()[0], "", "")
		for i := range items {
			if items[i].GetDeletionTimestamp() != nil {
				w.empty(ctx, &items[i])
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (w *world) ready(ctx context.Context, k kind, o *Object) {
	seen, _, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
	if seen == o.GetGeneration() || o.GetAnnotations()["test/never-ready"] != "" {
		return
	}
	one := int64(1)
	o.Object["status"] = map[string]any{"observedGeneration": o.GetGeneration()}
	if k.name == "DaemonSet" {
		o.Object["status"] = map[string]any{
			"observedGeneration": o.GetGeneration(), "desiredNumberScheduled": one, "currentNumberScheduled": one,
			"numberMisscheduled": int64(0), "numberReady": one, "updatedNumberScheduled": one, "numberAvailable": one,
		}
	} else {
		o.Object["status"] = map[string]any{"observedGeneration": o.GetGeneration(), "replicas": one, "updatedReplicas": one, "readyReplicas": one, "availableReplicas": one}
	}
	_, _ = w.any.Resource(k.resource()).Namespace(o.GetNamespace()).UpdateStatus(ctx, o, metav1.UpdateOptions{FieldManager: "kube-controller-manager"})
}

func (w *world) empty(ctx context.Context, ns *Object) {
	for _, k := range append(installable(), configMapKind(), secretKind(), leaseKind(), podKind()) {
		if !k.cluster {
			_ = w.any.Resource(k.resource()).Namespace(ns.GetName()).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		}
	}
	unstructured.RemoveNestedField(ns.Object, "spec", "finalizers")
	_, _ = w.any.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).Update(ctx, ns, metav1.UpdateOptions{}, "finalize")
}

// plan renders what settings say.
func (w *world) plan(set ...string) *Plan {
	w.t.Helper()
	return plan(w.t, set...)
}

func plan(t *testing.T, set ...string) *Plan {
	t.Helper()
	p, err := Make(Source{Charts: manifests.Charts(), Version: "v1"}, Options{Set: set})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *world) install(set ...string) Result {
	w.t.Helper()
	r, err := w.Install(w.t.Context(), w.plan(set...))
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) uninstall(purge bool) *Removal {
	w.t.Helper()
	r, err := w.Removal(w.t.Context(), purge)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.Uninstall(w.t.Context(), r); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// apply writes objects as the control plane does, or as another does.
func (w *world) apply(as, yaml string) {
	w.t.Helper()
	list, err := kubeapi.Objects(yaml)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range list {
		gvk := o.GroupVersionKind()
		r := w.any.Resource(gvk.GroupVersion().WithResource(kubeapi.Plural(gvk.Kind)))
		var to dynamic.ResourceInterface = r
		if o.GetNamespace() != "" {
			to = r.Namespace(o.GetNamespace())
		}
		if _, err := to.Apply(w.t.Context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: as, Force: true}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// has reports whether an object is there.
func (w *world) has(k kind, namespace, name string) bool {
	w.t.Helper()
	o, err := w.Cluster.get(w.t.Context(), k, namespace, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return o != nil
}

// versions are the resource versions of everything that a plan has.
func (w *world) versions(p *Plan) map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for _, o := range p.Objects() {
		k, _, _ := kindOf(o)
		now, err := w.Cluster.get(w.t.Context(), k, o.GetNamespace(), o.GetName())
		if err != nil {
			w.t.Fatal(err)
		}
		if now == nil {
			w.t.Errorf("%s is not there", describe(o))
			continue
		}
		all[describe(o)] = fmt.Sprint(now.GetResourceVersion())
	}
	return all
}
