package control

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/mesh"
)

// How long a root ConfigMap that we wrote may take to come back through the source, and when to look again.
const (
	writeSettles = 2 * time.Second
	lookAgain    = 5 * time.Second
)

// distributeRoots keeps the root certificates in a ConfigMap of every namespace, where pods mount them. One that is
// deleted or changed is put right.
func (c *Control) distributeRoots(ctx context.Context, a *authority) error {
	news := make(chan struct{}, 1)
	stopNamespaces := c.store.Objects.Namespaces.Watch(func([]collection.Event[*corev1.Namespace]) { signal(news) })
	defer stopNamespaces()
	var mu sync.Mutex
	seen := map[string]bool{} // guarded by mu: namespaces whose ConfigMap has come through the source
	stopMaps := c.store.Objects.ConfigMaps.Watch(func(es []collection.Event[*corev1.ConfigMap]) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range es {
			if namespace, name, _ := strings.Cut(e.Key, "/"); name == mesh.RootConfigMap {
				seen[namespace] = true
				signal(news)
			}
		}
	})
	defer stopMaps()
	changed, stopRoots := a.watch()
	defer stopRoots()
	written := map[string]time.Time{}
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		case <-changed:
			clear(written)
		case <-again.C:
		}
		now := time.Now()
		mu.Lock()
		maps.DeleteFunc(written, func(ns string, at time.Time) bool { return seen[ns] || now.Sub(at) > writeSettles })
		clear(seen)
		mu.Unlock()
		for name, ns := range c.store.Objects.Namespaces.All() {
			if _, justNow := written[name]; justNow || ns.DeletionTimestamp != nil {
				continue
			}
			m, needed := rootMap(c.store.Objects, name, a.roots())
			if !needed {
				continue
			}
			if err := c.conf.Writer.Apply(ctx, m); err != nil {
				c.conf.Log.Error("root certificates not written, will retry", "namespace", name, "error", err)
				continue
			}
			written[name] = now
		}
	}
}

// rootMap is the ConfigMap that a namespace should have, and whether it has another or none. What others say in it stays.
func rootMap(o *source.Objects, namespace, roots string) (*corev1.ConfigMap, bool) {
	m, ok := o.ConfigMaps.Get(source.Key(namespace, mesh.RootConfigMap))
	switch {
	case ok && m.Data[mesh.RootConfigKey] == roots:
		return nil, false
	case ok:
		m = m.DeepCopy()
	default:
		m = &corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Name: mesh.RootConfigMap, Namespace: namespace, Labels: map[string]string{"istio.io/config": "true"}},
		}
	}
	if m.Data == nil {
		m.Data = map[string]string{}
	}
	m.Data[mesh.RootConfigKey] = roots
	return m, true
}
