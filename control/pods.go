package control

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/source"
)

// onNode is where a pod runs and as whom.
type onNode struct{ node, namespace, account string }

// pods answers what the CA asks of the cluster.
type pods struct {
	all collection.Collection[*corev1.Pod]
	by  *collection.Index[onNode, *corev1.Pod]
}

func newPods(o *source.Objects) pods {
	return pods{o.Pods, collection.NewIndex(o.Pods, func(p *corev1.Pod) []onNode {
		account := p.Spec.ServiceAccountName
		if account == "" {
			account = "default"
		}
		return []onNode{{p.Spec.NodeName, p.Namespace, account}}
	})}
}

func (p pods) Get(key string) (*corev1.Pod, bool) { return p.all.Get(key) }

func (p pods) Running(node, namespace, account string) []*corev1.Pod {
	return p.by.Lookup(onNode{node, namespace, account})
}
