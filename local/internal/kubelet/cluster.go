package kubelet

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/local/internal/store"
	"github.com/ambit-mesh/ambit/local/internal/token"
)

// FromStore is a Cluster made of the local cluster's own store and keys.
func FromStore(s *store.Store, keys *token.Keys) Cluster { return stored{s, keys} }

type stored struct {
	s    *store.Store
	keys *token.Keys
}

func (c stored) Pods() []*corev1.Pod { return store.List[*corev1.Pod](c.s, "") }

func (c stored) ConfigMap(namespace, name string) (*corev1.ConfigMap, bool) {
	m, err := store.Get[*corev1.ConfigMap](c.s, namespace, name)
	return m, err == nil
}

func (c stored) Secret(namespace, name string) (*corev1.Secret, bool) {
	m, err := store.Get[*corev1.Secret](c.s, namespace, name)
	return m, err == nil
}

func (c stored) Services(namespace string) []*corev1.Service {
	return store.List[*corev1.Service](c.s, namespace)
}

func (c stored) UpdatePod(namespace, name string, f func(*corev1.Pod) error) error {
	_, err := store.Update(c.s, namespace, name, f)
	return gone(err)
}

func (c stored) RemovePod(namespace, name string, uid types.UID) error {
	err := c.s.Delete(store.KindFor[*corev1.Pod](), namespace, name, store.DeleteOptions{Grace: new(time.Duration(0)), UID: uid})
	if errors.Is(err, store.ErrConflict) {
		return ErrGone // another pod of that name
	}
	return gone(err)
}

func gone(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return errors.Join(ErrGone, err)
	}
	return err
}

func (c stored) PutNode(node *corev1.Node) error {
	_, err := c.s.Create(node)
	if !errors.Is(err, store.ErrExists) {
		return err
	}
	_, err = store.Update(c.s, "", node.Name, func(have *corev1.Node) error {
		have.Status, have.Spec = node.Status, node.Spec
		if have.Labels == nil {
			have.Labels = map[string]string{}
		}
		for k, v := range node.Labels {
			have.Labels[k] = v
		}
		return nil
	})
	return err
}

func (c stored) Event(e *corev1.Event) error {
	_, err := c.s.Create(e)
	return err
}

func (c stored) Subscribe() (<-chan struct{}, func()) {
	return c.s.Subscribe(store.KindFor[*corev1.Pod](), store.KindFor[*corev1.ConfigMap](), store.KindFor[*corev1.Secret]())
}

func (c stored) Token(pod *corev1.Pod, audience string, ttl time.Duration) (string, error) {
	account, err := store.Get[*corev1.ServiceAccount](c.s, pod.Namespace, serviceAccount(pod))
	if err != nil {
		return "", fmt.Errorf("find the service account: %w", err)
	}
	if audience == "" {
		audience = token.APIAudience
	}
	return c.keys.Issue(token.Identity{
		Namespace:      pod.Namespace,
		Pod:            &token.Bound{Name: pod.Name, UID: string(pod.UID)},
		Node:           &token.Bound{Name: pod.Spec.NodeName},
		ServiceAccount: token.Bound{Name: account.Name, UID: string(account.UID)},
	}, audience, ttl)
}
