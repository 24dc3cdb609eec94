package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/cniplugin"
	"github.com/ambit-mesh/ambit/node/internal/podwatch"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
)

// Uninstall takes the plugin out of the host and every rule out of the node and its pods.
func (n *Node) Uninstall() error {
	var failed []error
	err := n.agent.spaces.each(func(ns *netns.Namespace) {
		ours, err := redirect.Captured(ns)
		if err == nil && ours {
			_, cut := redirect.CutCaptured(ns)
			err = errors.Join(cut, redirect.Remove(ns), redirect.ForgetCaptured(ns))
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("network namespace %d: %w", ns.Inode(), err))
		}
	})
	return errors.Join(append(failed, err, n.host.Uninstall(), n.agent.probes.Remove())...)
}

const (
	askRemoved  = 3 * time.Second  // how long an agent that ends may ask whether it is to come back
	leaveWithin = 20 * time.Second // less than kubelet's patience
)

// removed reports whether the agent ends because somebody took it out of the cluster. Whatever keeps that from being known means
// that it comes back: an upgrade, a node that restarts.
func (n *Node) removed() bool {
	if n.conf.DaemonSet == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), askRemoved)
	defer cancel()
	gone, err := n.agent.api.DaemonSetRemoved(ctx, n.conf.PodNamespace, n.conf.DaemonSet)
	if err != nil {
		n.conf.Log.Warn("plugin and rules are left in place for the next agent", "error", err)
	}
	return err == nil && gone
}

// leave gives the node back as it was before the agent, once nothing else of it works: pods would wait for an agent that never
// comes. Pods leave the mesh as if one by one: first others learn of it.
func (n *Node) leave() error {
	n.conf.Log.Info("the agent was taken out of the cluster: its plugin and its rules go", "daemonset", n.conf.PodNamespace+"/"+n.conf.DaemonSet)
	ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
	defer cancel()
	hostErr := n.host.Uninstall()
	room := make(chan struct{}, workers)
	var wg sync.WaitGroup
	for _, k := range n.agent.pods.keys() {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if err := n.agent.api.Annotate(ctx, k, mesh.AnnotationRedirection, ""); err != nil && !podwatch.NotFound(err) {
				n.conf.Log.Warn("others may still think that a pod is in the mesh", "pod", k.String(), "error", err)
			}
		})
	}
	wg.Wait()
	t := time.NewTimer(n.conf.LeaveAfter)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return errors.Join(hostErr, n.Uninstall(), n.removeSockets())
}

// removeSockets takes away what the next agent would otherwise listen at.
func (n *Node) removeSockets() error {
	var failed []error
	for _, path := range []string{n.conf.ZDSSocket, n.conf.EventSocket, filepath.Join(filepath.Dir(n.conf.EventSocket), cniplugin.LogSocket)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, fmt.Errorf("remove socket: %w", err))
		}
	}
	return errors.Join(failed...)
}
