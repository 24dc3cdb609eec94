// Package podwatch knows the pods of this node and all namespaces, from the Kubernetes API.
package podwatch

import (
	"context"
	"log/slog"
	"maps"
	"net/url"
	"sync"

	"github.com/ambit-mesh/ambit/node/internal/objects"

	"github.com/ambit-mesh/ambit/lifecycle"
)

// Change is what became of a pod.
type Change string

// Changes.
const (
	Added   Change = "add"
	Updated Change = "update" // or its namespace was
	Deleted Change = "delete"
)

// Watch is a copy of this node's pods and of all namespaces.
type Watch struct {
	client  *Client
	node    string
	changed func(objects.Key, Change)
	log     *slog.Logger
	synced  chan struct{}

	mu         sync.RWMutex                // guards below
	pods       map[objects.Key]objects.Pod // values immutable; nil until listed
	namespaces map[string]objects.Namespace
	isSynced   bool
	next       chan struct{} // closed at the next change of a pod
}

// New makes a Watch of one node's pods. changed is called for each pod that may be judged differently now,
// because it or its namespace changed or it is gone; it must not block.
func New(c *Client, node string, log *slog.Logger, changed func(objects.Key, Change)) *Watch {
	return &Watch{client: c, node: node, changed: changed, log: log, synced: make(chan struct{}), next: make(chan struct{})}
}

// Run keeps the copy fresh until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	g := lifecycle.NewGroup(ctx)
	g.Go("pods", (&reflector[objects.PodJSON]{
		client: w.client, path: "/api/v1/pods", query: url.Values{"fieldSelector": {"spec.nodeName=" + w.node}}, log: w.log,
		replace: w.replacePods, upsert: func(o objects.PodJSON) { w.setPod(o.Pod()) }, remove: func(o objects.PodJSON) { w.removePod(o.Pod().Key) },
	}).run)
	g.Go("namespaces", (&reflector[objects.NamespaceJSON]{
		client: w.client, path: "/api/v1/namespaces", log: w.log,
		replace: w.replaceNamespaces, upsert: func(o objects.NamespaceJSON) { w.setNamespace(o.Namespace()) },
		remove: func(o objects.NamespaceJSON) { w.removeNamespace(o.Metadata.Name) },
	}).run)
	return g.Wait()
}

// Synced is closed once both lists were read.
func (w *Watch) Synced() <-chan struct{} { return w.synced }

// Pod gives a pod and its namespace as last seen.
func (w *Watch) Pod(k objects.Key) (p objects.Pod, ns objects.Namespace, known bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	p, known = w.pods[k]
	return p, w.namespaces[k.Namespace], known
}

// Has reports whether a pod of the node has this UID for its runtime.
func (w *Watch) Has(uid string) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for _, p := range w.pods {
		if p.RuntimeUID() == uid {
			return true
		}
	}
	return false
}

// Next is closed when a pod changes after this call.
func (w *Watch) Next() <-chan struct{} {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.next
}

func (w *Watch) tellLocked() {
	close(w.next)
	w.next = make(chan struct{})
}

// Pods lists the pods.
func (w *Watch) Pods() []objects.Pod {
	w.mu.RLock()
	defer w.mu.RUnlock()
	all := make([]objects.Pod, 0, len(w.pods))
	for _, p := range w.pods {
		all = append(all, p)
	}
	return all
}

func (w *Watch) replacePods(items []objects.PodJSON) {
	now := map[objects.Key]objects.Pod{}
	for _, o := range items {
		p := o.Pod()
		now[p.Key] = p
	}
	w.mu.Lock()
	old := w.pods
	w.pods = now
	w.tellLocked()
	w.syncLocked()
	w.mu.Unlock()
	for k := range old {
		if _, still := now[k]; !still {
			w.changed(k, Deleted)
		}
	}
	for k := range now {
		if _, was := old[k]; was {
			w.changed(k, Updated)
		} else {
			w.changed(k, Added)
		}
	}
}

func (w *Watch) replaceNamespaces(items []objects.NamespaceJSON) {
	now := map[string]objects.Namespace{}
	for _, o := range items {
		now[o.Metadata.Name] = o.Namespace()
	}
	w.mu.Lock()
	old := w.namespaces
	w.namespaces = now
	w.syncLocked()
	w.mu.Unlock()
	for _, p := range w.Pods() {
		if !maps.Equal(old[p.Namespace].Labels, now[p.Namespace].Labels) {
			w.changed(p.Key, Updated)
		}
	}
}

func (w *Watch) syncLocked() {
	if !w.isSynced && w.pods != nil && w.namespaces != nil {
		w.isSynced = true
		close(w.synced)
	}
}

func (w *Watch) setPod(p objects.Pod) {
	w.mu.Lock()
	_, was := w.pods[p.Key]
	w.pods[p.Key] = p
	w.tellLocked()
	w.mu.Unlock()
	if was {
		w.changed(p.Key, Updated)
	} else {
		w.changed(p.Key, Added)
	}
}

func (w *Watch) removePod(k objects.Key) {
	w.mu.Lock()
	delete(w.pods, k)
	w.tellLocked()
	w.mu.Unlock()
	w.changed(k, Deleted)
}

func (w *Watch) setNamespace(ns objects.Namespace) {
	w.mu.Lock()
	same := maps.Equal(w.namespaces[ns.Name].Labels, ns.Labels)
	w.namespaces[ns.Name] = ns
	w.mu.Unlock()
	if !same {
		w.podsOf(ns.Name)
	}
}

func (w *Watch) removeNamespace(name string) {
	w.mu.Lock()
	delete(w.namespaces, name)
	w.mu.Unlock()
	w.podsOf(name)
}

func (w *Watch) podsOf(namespace string) {
	for _, p := range w.Pods() {
		if p.Namespace == namespace {
			w.changed(p.Key, Updated)
		}
	}
}
