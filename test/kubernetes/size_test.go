package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// idle: what the components take when nothing happens.
func (f *figures) idle(t *testing.T) {
	f.NeedsOwn(t)
	f.rss("RSS idle", f.calm(t))
}

// size: what the components take with the Services and pods of a larger cluster in the API server (objects only), and what it
// costs to learn of these.
func (f *figures) size(t *testing.T) {
	f.NeedsOwn(t)
	before := f.calm(t)
	services, pods := f.of(200, 1000), f.of(1000, 5000)
	bytes := f.sent(t)
	began := time.Now()
	undo := f.fill(t, services, pods)
	filled := time.Since(began)
	defer undo()
	after := f.calm(t)
	what := fmt.Sprintf("%d Services and %d pods", services, pods)
	f.rss("RSS with "+what, after)
	f.row("xDS to all node proxies for them", "%.2f MB", float64(f.sent(t)-bytes)/1e6)
	f.row("CPU of istiod for them", "%.1f s, while they were made in %.0f s", (after["ambitd"].cpu - before["ambitd"].cpu).Seconds(), filled.Seconds())
	for name, p := range after {
		if p.rss > 600<<10 {
			t.Errorf("%s has %d KiB resident", name, p.rss)
		}
	}
}

// usage is what the processes of a program have: the most KiB of one, and CPU of all.
type usage struct {
	rss int
	cpu time.Duration
	n   int
}

// usage by program, on all nodes.
func (f *figures) usage(t *testing.T) map[string]usage {
	t.Helper()
	all := map[string]usage{}
	for _, node := range f.nodes {
		out := f.Enter(t, node, "sh", "-c", `for p in $(pgrep -x 'ambitd|ztunnel|ambit-node|waypoint'); do echo $(cat /proc/$p/comm) $(awk '/VmRSS/ {print $2}' /proc/$p/status) $(awk '{print $14 + $15}' /proc/$p/stat); done`)
		for line := range strings.Lines(out) {
			w := strings.Fields(line)
			if len(w) != 3 {
				continue // it ended meanwhile
			}
			rss, err1 := strconv.Atoi(w[1])
			ticks, err2 := strconv.Atoi(w[2])
			if err1 != nil || err2 != nil {
				t.Fatalf("usage of %s: %q", node, line)
			}
			u := all[w[0]]
			all[w[0]] = usage{max(u.rss, rss), u.cpu + time.Duration(ticks)*10*time.Millisecond, u.n + 1}
		}
	}
	return all
}

// calm waits until nothing of the mesh has much to do, for a minute at most.
func (f *figures) calm(t *testing.T) map[string]usage {
	t.Helper()
	now := f.usage(t)
	for range 20 {
		time.Sleep(3 * time.Second) // the stretch that is looked at
		next, busy := f.usage(t), time.Duration(0)
		for name, u := range next {
			busy += u.cpu - now[name].cpu
		}
		if now = next; busy < 150*time.Millisecond {
			break
		}
	}
	return now
}

func (f *figures) rss(what string, all map[string]usage) {
	var said []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		said = append(said, fmt.Sprintf("%s %.1f MB", name, float64(all[name].rss)/1024))
	}
	f.row(what+" (the largest process)", "%s", strings.Join(said, ", "))
}

// sent is how many bytes of xDS the control plane has sent.
func (f *figures) sent(t *testing.T) int {
	t.Helper()
	pods := f.get(t, "istio-system", "pods", `.items[?(@.metadata.labels.app=="istiod")].metadata.name`)
	sum := 0
	for _, pod := range strings.Fields(pods) {
		out := f.Kubectl(t, "get", "--raw", "/api/v1/namespaces/istio-system/pods/"+pod+":15014/proxy/metrics")
		for line := range strings.Lines(out) {
			if value, ok := strings.CutPrefix(line, "pilot_xds_config_size_bytes_sum"); ok {
				v, err := strconv.ParseFloat(strings.TrimSpace(value[strings.Index(value, "}")+1:]), 64)
				if err != nil {
					t.Fatalf("metric %q: %v", line, err)
				}
				sum += int(v)
			}
		}
	}
	return sum
}

// fill writes Services and pods that run on nodes which are nothing but objects, and whose heart the test lets beat.
func (f *figures) fill(t *testing.T, services, pods int) (undo func()) {
	t.Helper()
	const nodes = 5
	ns := f.ambient(t, "many")
	ctx, stop := context.WithCancel(context.Background())
	var beating sync.WaitGroup
	var names []string
	for i := range nodes {
		name := fmt.Sprintf("%s-%d", ns, i)
		names = append(names, name)
		f.must(t, f.beat(ctx, name))
		beating.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Second):
					_ = f.beat(ctx, name) // the next one may come through
				}
			}
		})
	}
	zero := int64(0)
	f.each(t, services, func(i int) error {
		app := "a" + strconv.Itoa(i)
		_, err := f.api.CoreV1().Services(ns).Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: app},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": app}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		}, metav1.CreateOptions{})
		return err
	})
	f.each(t, pods, func(i int) error {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: "p" + strconv.Itoa(i), Labels: map[string]string{"app": "a" + strconv.Itoa(i%services)},
				Annotations: map[string]string{"ambient.istio.io/redirection": "enabled"},
			},
			Spec: corev1.PodSpec{NodeName: names[i%nodes], TerminationGracePeriodSeconds: &zero, Containers: []corev1.Container{{Name: "app", Image: "none"}}},
		}
		made, err := f.api.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		ip := fmt.Sprintf("10.200.%d.%d", i/250, 1+i%250)
		made.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		}
		_, err = f.api.CoreV1().Pods(ns).UpdateStatus(ctx, made, metav1.UpdateOptions{})
		return err
	})
	return func() {
		all := context.Background()
		f.each(t, pods, func(i int) error {
			return f.api.CoreV1().Pods(ns).Delete(all, "p"+strconv.Itoa(i), metav1.DeleteOptions{GracePeriodSeconds: &zero})
		})
		stop()
		beating.Wait()
		for _, name := range names {
			f.must(t, f.api.CoreV1().Nodes().Delete(all, name, metav1.DeleteOptions{}))
		}
	}
}

func (f *figures) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// beat makes a node, or says that it lives. No DaemonSet and no scheduler wants it.
func (f *figures) beat(ctx context.Context, name string) error {
	node, err := f.api.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		node, err = f.api.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Unschedulable: true}}, metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	now := metav1.NewMicroTime(time.Now())
	if len(node.Status.Conditions) == 0 {
		ready := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, now.UTC().Format(time.RFC3339))
		if _, err := f.api.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, []byte(ready), metav1.PatchOptions{}, "status"); err != nil {
			return err
		}
		seconds := int32(40)
		_, err := f.api.CoordinationV1().Leases("kube-node-lease").Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: node.UID}}},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
		}, metav1.CreateOptions{})
		return err
	}
	lease, err := f.api.CoordinationV1().Leases("kube-node-lease").Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &now
	_, err = f.api.CoordinationV1().Leases("kube-node-lease").Update(ctx, lease, metav1.UpdateOptions{})
	return err
}

// each does n things, some at a time.
func (f *figures) each(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					t.Errorf("object %d: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
