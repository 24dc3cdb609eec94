// Package kubelet runs the pods that are bound to one node and tells the cluster how they are.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
)

// Cluster is what a kubelet needs of the cluster's objects. What it gives out is not written.
type Cluster interface {
	Pods() []*corev1.Pod
	ConfigMap(namespace, name string) (*corev1.ConfigMap, bool)
	Secret(namespace, name string) (*corev1.Secret, bool)
	Services(namespace string) []*corev1.Service
	// UpdatePod changes a pod by f, which is given a copy. A pod that is gone is ErrGone.
	UpdatePod(namespace, name string, f func(*corev1.Pod) error) error
	// RemovePod takes away a pod that has ended, if it still has that uid.
	RemovePod(namespace, name string, uid types.UID) error
	// PutNode makes the node, or sets its status.
	PutNode(node *corev1.Node) error
	Event(e *corev1.Event) error
	// Subscribe wakes whenever pods, config maps or secrets may have changed.
	Subscribe() (wake <-chan struct{}, stop func())
	// Token is a new token of the pod's service account, bound to the pod.
	Token(pod *corev1.Pod, audience string, ttl time.Duration) (string, error)
}

// ErrGone is for an object that is not there any more.
var ErrGone = errors.New("is gone")

// Config says what a kubelet works with.
type Config struct {
	Node *network.Node
	// Labels and Taints are the node's.
	Labels  map[string]string
	Taints  []corev1.Taint
	Runtime *runtime.Runtime
	Cluster Cluster
	// DNS is the cluster's name server; Domain its domain, by default "cluster.local".
	DNS    netip.Addr
	Domain string
	// Logs is the directory of the containers' logs.
	Logs string
	// Backoff is the wait before the second restart of a container, doubled each time up to BackoffMost.
	// Default 1s and 1m: a developer's machine, not a fleet.
	Backoff, BackoffMost time.Duration
	Log                  *slog.Logger
}

// Kubelet is one node's.
type Kubelet struct {
	conf Config

	mu   sync.Mutex // guards below
	pods map[types.UID]*worker
}

// New makes a kubelet.
func New(c Config) *Kubelet {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Domain == "" {
		c.Domain = "cluster.local"
	}
	if c.Backoff == 0 {
		c.Backoff = time.Second
	}
	if c.BackoffMost == 0 {
		c.BackoffMost = time.Minute
	}
	return &Kubelet{conf: c, pods: map[types.UID]*worker{}}
}

// Run makes the node and runs its pods until ctx ends; then it ends them at once.
func (k *Kubelet) Run(ctx context.Context) error {
	if err := k.conf.Runtime.SetupNode(k.conf.Node); err != nil {
		return err
	}
	wake, stop := k.conf.Cluster.Subscribe()
	defer stop()
	if err := k.conf.Cluster.PutNode(k.node()); err != nil {
		return fmt.Errorf("make node %s: %w", k.conf.Node.Name, err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
			k.sync(ctx, &wg)
		}
	}
}

// sync gives every pod of this node a worker, and every worker its pod as it is now.
func (k *Kubelet) sync(ctx context.Context, wg *sync.WaitGroup) {
	seen := map[types.UID]bool{}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, pod := range k.conf.Cluster.Pods() {
		if pod.Spec.NodeName != k.conf.Node.Name {
			continue
		}
		seen[pod.UID] = true
		w, known := k.pods[pod.UID]
		if known {
			w.update(pod)
			continue
		}
		if ended(pod) && pod.DeletionTimestamp == nil {
			continue
		}
		w = newWorker(k, pod)
		k.pods[pod.UID] = w
		wg.Go(func() {
			w.run(ctx)
			k.mu.Lock()
			defer k.mu.Unlock()
			delete(k.pods, w.uid)
		})
	}
	for uid, w := range k.pods {
		if !seen[uid] {
			w.update(nil)
		}
	}
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// find is the worker of a pod by name.
func (k *Kubelet) find(namespace, name string) (*worker, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.pods {
		if pod := w.pod(); pod != nil && pod.Namespace == namespace && pod.Name == name {
			return w, true
		}
	}
	return nil, false
}

// Container is a running container of a pod on this node; without a name, the pod's first.
func (k *Kubelet) Container(namespace, pod, container string) (*runtime.Container, error) {
	w, ok := k.find(namespace, pod)
	if !ok {
		return nil, fmt.Errorf("pod %s/%s does not run on node %s", namespace, pod, k.conf.Node.Name)
	}
	return w.container(container)
}

// LogOptions say what to read of a container's log.
type LogOptions struct {
	runtime.LogOptions
	Container string // "": the pod's first
	Previous  bool   // of the run before the last restart
}

// Logs writes a container's log to w.
func (k *Kubelet) Logs(ctx context.Context, pod *corev1.Pod, o LogOptions, out io.Writer) error {
	if o.Container == "" {
		o.Container = pod.Spec.Containers[0].Name
	}
	n, err := attempts(pod, o.Container)
	if err != nil {
		return err
	}
	if o.Previous {
		if n--; n < 0 {
			return fmt.Errorf("previous terminated container %q in pod %q not found", o.Container, pod.Name)
		}
	}
	return k.conf.Runtime.ReadLog(ctx, k.logPath(pod, o.Container, n), o.LogOptions, out)
}

// attempts is how often a container was restarted; it is an error if it has not started yet.
func attempts(pod *corev1.Pod, container string) (int, error) {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for _, s := range list {
			if s.Name != container {
				continue
			}
			if s.State.Waiting != nil && s.LastTerminationState.Terminated == nil {
				return 0, fmt.Errorf("container %q in pod %q is waiting to start: %s", container, pod.Name, s.State.Waiting.Reason)
			}
			return int(s.RestartCount), nil
		}
	}
	return 0, fmt.Errorf("pod %q has no container %q, or it has not started yet", pod.Name, container)
}

// logDir holds the logs of a pod's containers.
func (k *Kubelet) logDir(pod *corev1.Pod) string {
	return filepath.Join(k.conf.Logs, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// logPath is one run's.
func (k *Kubelet) logPath(pod *corev1.Pod, container string, attempt int) string {
	return filepath.Join(k.logDir(pod), container, strconv.Itoa(attempt)+".log")
}
