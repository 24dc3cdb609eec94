package local

import (
	"context"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/internal/api"
	"github.com/ambit-mesh/ambit/local/internal/kubelet"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
)

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
