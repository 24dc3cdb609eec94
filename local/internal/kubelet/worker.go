package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/local/internal/runtime"
)

// worker brings one pod up, keeps it running and takes it down.
type worker struct {
	k    *Kubelet
	uid  types.UID
	log  *slog.Logger
	wake chan struct{} // the pod was changed

	mu      sync.Mutex // guards below
	latest  *corev1.Pod
	gone    bool // removed without us
	sandbox *runtime.Pod
	ctrs    map[string]*container
	inited  bool
	start   time.Time
	failed  string // why the pod failed as a whole; "" while it did not
	waiting string // why no container can start yet, as a reason; "" when they can
	message string

	publishing sync.Mutex // held while the status is written; taken before mu
}

func newWorker(k *Kubelet, pod *corev1.Pod) *worker {
	w := &worker{
		k: k, uid: pod.UID, latest: pod, wake: make(chan struct{}, 1), ctrs: map[string]*container{}, start: time.Now(),
		log: k.conf.Log.With("pod", pod.Namespace+"/"+pod.Name), waiting: "ContainerCreating",
	}
	for _, c := range pod.Spec.InitContainers {
		w.ctrs[c.Name] = &container{w: w, spec: c, init: true}
	}
	for _, c := range pod.Spec.Containers {
		w.ctrs[c.Name] = &container{w: w, spec: c}
	}
	return w
}

// update tells the worker how its pod is now; nil: it is no more.
func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	if pod != nil {
		w.latest = pod
	}
	w.gone = pod == nil
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *worker) pod() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

// ending tells whether the pod is to be taken down.
func (w *worker) ending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone || w.latest.DeletionTimestamp != nil
}

// run is the pod's life. When it returns, nothing of the pod is left on the node.
func (w *worker) run(ctx context.Context) {
	life, end := context.WithCancel(ctx)
	defer end()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer end()
		for !w.ending() {
			select {
			case <-life.Done():
				return
			case <-w.wake:
			}
		}
	})
	w.publish()
	if err := w.live(life, &wg); err != nil && life.Err() == nil {
		w.log.Warn("pod failed", "error", err)
		w.mu.Lock()
		w.failed = err.Error()
		w.mu.Unlock()
		w.publish()
	}
	<-life.Done()
	w.end(ctx)
	wg.Wait()
}

// live does everything up to the pod's deletion, at which ctx ends.
func (w *worker) live(ctx context.Context, wg *sync.WaitGroup) error {
	sandbox, vols, err := w.create(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.sandbox, w.waiting, w.message = sandbox, "", ""
	w.mu.Unlock()
	w.publish()
	wg.Go(func() { w.refresh(ctx, vols) })
	pod := w.pod()
	for _, spec := range pod.Spec.InitContainers {
		c := w.ctrs[spec.Name]
		if spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			wg.Go(func() { c.keep(ctx, vols) })
			if err := c.awaitStarted(ctx); err != nil {
				return err
			}
			continue
		}
		if err := c.complete(ctx, vols); err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.inited = true
	w.mu.Unlock()
	w.publish()
	for _, spec := range pod.Spec.Containers {
		c := w.ctrs[spec.Name]
		wg.Go(func() { c.keep(ctx, vols) })
	}
	return nil
}

// create makes the pod's volumes and its network, trying until it succeeds.
func (w *worker) create(ctx context.Context) (*runtime.Pod, *volumes, error) {
	pod := w.pod()
	vols := newVolumes(w.k, w.k.podDir(pod))
	err := w.until(ctx, "FailedMount", func() error { return vols.prepare(w.pod(), time.Now()) })
	if err != nil {
		return nil, nil, err
	}
	var sandbox *runtime.Pod
	err = w.until(ctx, "FailedCreatePodSandBox", func() (err error) {
		sandbox, err = w.k.conf.Runtime.RunPod(ctx, w.k.podConfig(pod))
		return err
	})
	return sandbox, vols, err
}

// until repeats f with growing pauses until it succeeds or ctx ends, saying why it does not.
func (w *worker) until(ctx context.Context, reason string, f func() error) error {
	pause := 100 * time.Millisecond
	last := ""
	for {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if last != err.Error() {
			last = err.Error()
			w.event(corev1.EventTypeWarning, reason, last)
			w.mu.Lock()
			w.message = last
			w.mu.Unlock()
			w.publish()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause = min(pause*2, 5*time.Second)
		}
	}
}

// refreshes is how often a pod's volumes are compared with what they come from.
const refreshes = time.Second

// refresh keeps the contents of volumes as the cluster has them, and tokens valid.
func (w *worker) refresh(ctx context.Context, vols *volumes) {
	tick := time.NewTicker(refreshes)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := vols.prepare(w.pod(), time.Now()); err != nil && ctx.Err() == nil {
			w.log.Debug("keep volumes up to date", "error", err)
		}
	}
}

// end takes the pod down. If the kubelet itself is ending, at once and without a word.
func (w *worker) end(ctx context.Context) {
	w.mu.Lock()
	sandbox, pod, gone := w.sandbox, w.latest, w.gone
	w.mu.Unlock()
	grace := time.Duration(0)
	if ctx.Err() == nil && !gone {
		grace = 30 * time.Second
		if pod.DeletionGracePeriodSeconds != nil {
			grace = time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
		}
		w.preStop(ctx, grace)
	}
	if sandbox != nil {
		if err := sandbox.Stop(ctx, grace); err != nil {
			w.log.Warn("take the pod down", "error", err)
		}
	}
	if err := os.RemoveAll(w.k.podDir(pod)); err != nil {
		w.log.Warn("remove the pod's volumes", "error", err)
	}
	if ctx.Err() != nil {
		return
	}
	if err := os.RemoveAll(w.k.logDir(pod)); err != nil {
		w.log.Warn("remove the pod's logs", "error", err)
	}
	if gone {
		return
	}
	if err := w.k.conf.Cluster.RemovePod(pod.Namespace, pod.Name, w.uid); err != nil && !errors.Is(err, ErrGone) {
		w.log.Error("remove the pod", "error", err)
	}
}

// preStop runs the containers' preStop commands, within the grace period.
func (w *worker) preStop(ctx context.Context, grace time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	var wg sync.WaitGroup
	for _, c := range w.ctrs {
		if h := c.spec.Lifecycle; h != nil && h.PreStop != nil {
			wg.Go(func() {
				if err := c.hook(ctx, h.PreStop); err != nil {
					w.event(corev1.EventTypeWarning, "FailedPreStopHook", err.Error())
				}
			})
		}
	}
	wg.Wait()
}

// container is a running one by name; "" is the pod's first.
func (w *worker) container(name string) (*runtime.Container, error) {
	pod := w.pod()
	if name == "" {
		name = pod.Spec.Containers[0].Name
	}
	c, ok := w.ctrs[name]
	if !ok {
		names := make([]string, 0, len(w.ctrs))
		for n := range w.ctrs {
			names = append(names, n)
		}
		slices.Sort(names)
		return nil, fmt.Errorf("container %q is not in pod %s; it has %v", name, pod.Name, names)
	}
	run := c.running()
	if run == nil {
		return nil, fmt.Errorf("container %q of pod %s: %w", name, pod.Name, runtime.ErrNotRunning)
	}
	return run, nil
}

// podDir is where runtime keeps the pod's things.
func (k *Kubelet) podDir(pod *corev1.Pod) string { return k.conf.Runtime.PodDir(string(pod.UID)) }

// podConfig is the pod as the runtime sees it.
func (k *Kubelet) podConfig(pod *corev1.Pod) runtime.PodConfig {
	c := runtime.PodConfig{
		Node: k.conf.Node, Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID),
		Hostname: pod.Spec.Hostname, HostNetwork: pod.Spec.HostNetwork,
		ResolvConf: resolvConf(pod, k.conf.DNS.String(), k.conf.Domain),
	}
	if c.Hostname == "" {
		c.Hostname = pod.Name
	}
	if c.HostNetwork {
		c.Hostname = k.conf.Node.Name
	}
	if len(c.Hostname) > 63 {
		c.Hostname = c.Hostname[:63]
	}
	for _, a := range pod.Spec.HostAliases {
		line := a.IP
		for _, h := range a.Hostnames {
			line += "\t" + h
		}
		c.Hosts = append(c.Hosts, line)
	}
	return c
}
