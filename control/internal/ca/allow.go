package ca

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/identity"
)

// Pods is what the decision needs to know of the cluster.
type Pods interface {
	Get(key string) (*corev1.Pod, bool)
	// Running lists the pods of a service account on a node.
	Running(node, namespace, serviceAccount string) []*corev1.Pod
}

// Rules say who may hold which identity.
type Rules struct {
	TrustDomain string
	Trusted     []string // "namespace/name" of the accounts of node proxies, which ask for the pods of their node
	Pods        Pods
}

// Allow gives the identity that a caller may have a certificate for. asked is the identity that it wants to act for,
// "" for its own.
func (r Rules) Allow(c source.Caller, asked string) (identity.ID, error) {
	own := c.ID(r.TrustDomain)
	if own.Namespace == "" || own.ServiceAccount == "" {
		return identity.ID{}, fmt.Errorf("caller is nobody")
	}
	if _, err := identity.Parse(own.String()); err != nil {
		return identity.ID{}, fmt.Errorf("caller: %w", err)
	}
	node, err := r.node(c)
	if err != nil {
		return identity.ID{}, err
	}
	if asked == "" {
		return own, nil
	}
	id, err := identity.Parse(asked)
	if err != nil {
		return identity.ID{}, fmt.Errorf("asked for: %w", err)
	}
	if id.TrustDomain != r.TrustDomain {
		return identity.ID{}, fmt.Errorf("asked for %s, which is of another trust domain than %s", id, r.TrustDomain)
	}
	if !slices.Contains(r.Trusted, c.Account()) {
		return identity.ID{}, fmt.Errorf("account %s may not act for others", c.Account())
	}
	if node == "" {
		return identity.ID{}, fmt.Errorf("token of %s is bound to no pod, so its node is unknown", c.Account())
	}
	for _, p := range r.Pods.Running(node, id.Namespace, id.ServiceAccount) {
		if !ended(p) {
			return id, nil
		}
	}
	return identity.ID{}, fmt.Errorf("no pod of %s runs on node %s", id.Principal(), node)
}

// Alive reports whether the pod that a caller's token is bound to is still there and is the same.
func (r Rules) Alive(c source.Caller) error {
	_, err := r.node(c)
	return err
}

// node is where the caller's pod runs. A token outlives its pod; the caller must not.
func (r Rules) node(c source.Caller) (string, error) {
	if c.Pod == "" {
		return "", nil
	}
	p, ok := r.Pods.Get(c.Namespace + "/" + c.Pod)
	switch {
	case !ok:
		return "", fmt.Errorf("caller's pod %s/%s does not exist", c.Namespace, c.Pod)
	case string(p.UID) != c.PodUID || c.PodUID == "":
		return "", fmt.Errorf("caller's pod %s/%s has the uid %q, its token %q", c.Namespace, c.Pod, p.UID, c.PodUID)
	case account(p) != c.ServiceAccount:
		return "", fmt.Errorf("caller's pod %s/%s runs as %s, its token is for %s", c.Namespace, c.Pod, account(p), c.ServiceAccount)
	case ended(p):
		return "", fmt.Errorf("caller's pod %s/%s has ended", c.Namespace, c.Pod)
	case c.Node != "" && p.Spec.NodeName != c.Node:
		return "", fmt.Errorf("caller's pod %s/%s is on node %s, its token says %s", c.Namespace, c.Pod, p.Spec.NodeName, c.Node)
	}
	return p.Spec.NodeName, nil
}

// account is the service account of a pod.
func account(p *corev1.Pod) string {
	if p.Spec.ServiceAccountName == "" {
		return "default"
	}
	return p.Spec.ServiceAccountName
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
}
