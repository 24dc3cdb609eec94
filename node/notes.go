package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/objects"
	"github.com/ambit-mesh/ambit/node/internal/podwatch"
)

// Reasons of events.
const (
	reasonFailed     = "MeshCaptureFailed"
	reasonCaptured   = "MeshCaptured"
	reasonUncaptured = "MeshRanUncaptured"
)

// tellAfter is how many looks in a row may fail before a pod's users hear of it: a second or so. Most of what fails is mended by then.
const tellAfter = 4

// notes count the looks at pods that failed in a row.
type notes struct {
	mu     sync.Mutex // guards below
	failed map[objects.Key]int
}

// look notes how a look at a pod went, and gives the event that follows of it.
func (n *notes) look(k objects.Key, err error) (podwatch.Event, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.failed[k]
	if err == nil {
		delete(n.failed, k)
		return podwatch.Event{Reason: reasonCaptured, Message: "The pod's traffic is captured by the mesh now."}, was >= tellAfter
	}
	if n.failed == nil {
		n.failed = map[objects.Key]int{}
	}
	n.failed[k] = was + 1
	return podwatch.Event{
		Warning: true, Reason: reasonFailed,
		Message: fmt.Sprintf("The pod's traffic is not captured by the mesh, or held until it is; the node agent tries again: %v", err),
	}, was+1 == tellAfter
}

// look brings a pod where it belongs, and lets its users know of what lasts.
func (a *agent) look(ctx context.Context, k objects.Key) (again time.Duration, err error) {
	again, err = a.reconcile(ctx, k)
	if e, tell := a.notes.look(k, err); tell && ctx.Err() == nil {
		if pod, ns, known := a.watch.Pod(k); known && a.rules.Decide(pod, ns).In {
			a.event(ctx, pod, e)
		}
	}
	return again, err
}

// ranUncaptured tells of a pod that ran without the rules that it should have had: it says itself that it is captured, or it was
// there before the agent. Its sandbox was made when the runtime did not call the plugin.
func (a *agent) ranUncaptured(ctx context.Context, pod objects.Pod, ended int) {
	if pod.Annotations[mesh.AnnotationRedirection] == "" && a.adopted.Load() {
		return // it only joins
	}
	a.log.Warn("a pod of the mesh ran uncaptured, and is captured now", "pod", pod.Key.String(), "ended", ended)
	a.event(ctx, pod, podwatch.Event{Warning: true, Reason: reasonUncaptured, Message: fmt.Sprintf(
		"The pod was in the mesh and its traffic not captured: it was started while the container runtime did not call the mesh's CNI plugin, or labelled while the node agent was away. "+
			"It is captured now; %d connections that went past the mesh were ended.", ended)})
}

// event tells a pod's users something. That they do not hear of it keeps nothing from happening.
func (a *agent) event(ctx context.Context, pod objects.Pod, e podwatch.Event) {
	if err := a.api.Tell(ctx, pod, a.conf.NodeName, e); err != nil {
		a.log.Warn("a pod's users do not see what happened", "reason", e.Reason, "error", err)
	}
}
