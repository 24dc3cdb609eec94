package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/local/internal/api"
	"github.com/ambit-mesh/ambit/local/internal/kubelet"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
	"github.com/ambit-mesh/ambit/local/internal/store"
	"github.com/ambit-mesh/ambit/local/internal/token"
)

// cluster is what the kubelets see of the objects.
type cluster struct{ *inside }

func (c cluster) Pods() []*corev1.Pod { return store.List[*corev1.Pod](c.store, "") }

func (c cluster) ConfigMap(namespace, name string) (*corev1.ConfigMap, bool) {
	o, err := store.Get[*corev1.ConfigMap](c.store, namespace, name)
	return o, err == nil
}

func (c cluster) Secret(namespace, name string) (*corev1.Secret, bool) {
	o, err := store.Get[*corev1.Secret](c.store, namespace, name)
	return o, err == nil
}

func (c cluster) Services(namespace string) []*corev1.Service {
	return store.List[*corev1.Service](c.store, namespace)
}

func (c cluster) UpdatePod(namespace, name string, f func(*corev1.Pod) error) error {
	_, err := store.Update(c.store, namespace, name, f)
	if errors.Is(err, store.ErrNotFound) {
		return kubelet.ErrGone
	}
	return err
}

func (c cluster) RemovePod(namespace, name string, uid types.UID) error {
	err := c.store.Delete(store.KindFor[*corev1.Pod](), namespace, name, store.DeleteOptions{Grace: new(time.Duration), UID: uid})
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

func (c cluster) PutNode(n *corev1.Node) error {
	n.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}
	_, err := store.Update(c.store, "", n.Name, func(o *corev1.Node) error {
		o.Labels, o.Spec, o.Status = n.Labels, n.Spec, n.Status
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		_, err = c.store.Create(n)
	}
	return err
}

func (c cluster) Event(e *corev1.Event) error {
	e.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}
	_, err := c.store.Create(e)
	return err
}

func (c cluster) Subscribe() (<-chan struct{}, func()) {
	return c.store.Subscribe(store.KindFor[*corev1.Pod](), store.KindFor[*corev1.ConfigMap](), store.KindFor[*corev1.Secret]())
}

func (c cluster) Token(p *corev1.Pod, audience string, ttl time.Duration) (string, error) {
	account := p.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	sa, err := store.Get[*corev1.ServiceAccount](c.store, p.Namespace, account)
	if err != nil {
		return "", fmt.Errorf("token of pod %s: %w", p.Name, err)
	}
	if audience == "" {
		audience = token.APIAudience
	}
	return c.keys.Issue(token.Identity{
		Namespace:      p.Namespace,
		Pod:            &token.Bound{Name: p.Name, UID: string(p.UID)},
		Node:           &token.Bound{Name: p.Spec.NodeName},
		ServiceAccount: token.Bound{Name: account, UID: string(sa.UID)},
	}, audience, ttl)
}

// kubeletOf is the one whose node a pod is on.
func (c *inside) kubeletOf(p *corev1.Pod) (*kubelet.Kubelet, error) {
	for i, k := range c.kubelets {
		if p.Spec.NodeName == nodeName(i+1) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("pod %s is on no node yet", p.Name)
}

// logs is how the API server reads a container's log.
func (c *inside) logs(ctx context.Context, p *corev1.Pod, o api.LogOptions, w io.Writer) error {
	k, err := c.kubeletOf(p)
	if err != nil {
		return err
	}
	opt := kubelet.LogOptions{Container: o.Container, Previous: o.Previous, LogOptions: runtime.LogOptions{
		Follow: o.Follow, Timestamps: o.Timestamps, Tail: int(o.TailLines),
	}}
	if o.SinceSeconds > 0 {
		opt.Since = time.Now().Add(-time.Duration(o.SinceSeconds) * time.Second)
	}
	return k.Logs(ctx, p, opt, w)
}
