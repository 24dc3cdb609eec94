package node

import (
	"context"
	"fmt"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// isProxy returns nil when a network namespace is that of a node proxy's pod on this node. It waits until ctx ends for the pod
// to be known: a proxy may be quicker than the word of its pod's address.
func (a *agent) isProxy(ctx context.Context, peer *netns.Namespace) error {
	for {
		next := a.watch.Next()
		if a.proxyNow(peer) {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("a process in network namespace %d asked for the pods' traffic, and is in no pod of this node with service account %s/%s: refused",
				peer.Inode(), a.conf.PodNamespace, a.conf.ProxyAccount)
		}
	}
}

// proxyNow compares with what is known now. An address is believed only if one namespace has it, see find.
func (a *agent) proxyNow(peer *netns.Namespace) bool {
	for _, p := range a.watch.Pods() {
		if p.Namespace != a.conf.PodNamespace || p.ServiceAccount != a.conf.ProxyAccount || p.Finished() {
			continue
		}
		if p.HostNetwork {
			own, err := netns.Current()
			if err != nil {
				continue
			}
			same := own.ID() == peer.ID()
			own.Close()
			if same {
				return true
			}
			continue
		}
		if len(p.IPs) == 0 || !holds(peer, p.IPs) {
			continue
		}
		found, err := a.spaces.find(p)
		if err != nil {
			a.log.Warn("node proxy not recognised", "pod", p.Key.String(), "error", err)
			continue
		}
		same := found.ID() == peer.ID()
		found.Close()
		if same {
			return true
		}
	}
	return false
}
