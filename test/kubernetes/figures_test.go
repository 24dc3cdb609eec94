package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ambit-mesh/ambit/samples/apps/load"
	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// figures measures, and prints what docs/kubernetes.md records. The bounds are far above what is measured: they are for
// what goes wrong, not for what gets slower. AMBIT_KUBERNETES_FULL=1 takes as many pods, policies and objects as are
// recorded; else a fraction of them.
type figures struct {
	*crowd
	api  *kubernetes.Clientset
	full bool
	// nodes are the real ones.
	nodes []string
	rows  [][2]string
}

func testFigures(t *testing.T, c *kube.Cluster) {
	rc, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	rc.QPS, rc.Burst = 5000, 5000
	api, err := kubernetes.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	f := &figures{crowd: crowded(t, c), api: api, full: os.Getenv("AMBIT_KUBERNETES_FULL") != "", nodes: c.Nodes(t)}
	t.Run("idle", f.idle)
	t.Run("policy to enforced", f.policies)
	t.Run("pod start", f.podStart)
	t.Run("label to captured", f.labelled)
	t.Run("size", f.size)
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, r := range f.rows {
		fmt.Fprintf(w, "%s\t%s\n", r[0], r[1])
	}
	w.Flush()
	t.Logf("figures, two cores shared by all nodes:\n%s", &b)
}

// of is the number of the recorded run, or the fraction for every day.
func (f *figures) of(everyDay, full int) int {
	if f.full {
		return full
	}
	return everyDay
}

func (f *figures) row(what, format string, args ...any) {
	f.rows = append(f.rows, [2]string{what, fmt.Sprintf(format, args...)})
}

func quantiles(all []time.Duration) (p50, p99 time.Duration) {
	slices.Sort(all)
	return all[len(all)/2], all[min(len(all)-1, len(all)*99/100)]
}

// podStart: of each pair of equal pods, made at the same time on the same node, one is of the mesh. Each says when its
// program's first act was; what it took from the API server's being asked is compared. Clocks of other machines fall out
// of the difference.
func (f *figures) podStart(t *testing.T) {
	ns := f.Namespace(t, "start")
	n := f.of(20, 100)
	took := map[bool][]time.Duration{}
	var differences []time.Duration
	for i := range n {
		pair := map[bool]time.Duration{}
		var mu sync.Mutex
		var both sync.WaitGroup
		for j := range 2 {
			in := (i+j)%2 == 0
			both.Go(func() {
				d, err := f.startOne(ns, fmt.Sprintf("pod-%d-%v", i, in), [...]string{f.one, f.two}[i/2%2], in)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				pair[in] = d
			})
		}
		both.Wait()
		if t.Failed() {
			return
		}
		took[true], took[false] = append(took[true], pair[true]), append(took[false], pair[false])
		differences = append(differences, pair[true]-pair[false])
	}
	in50, in99 := quantiles(took[true])
	out50, out99 := quantiles(took[false])
	d50, _ := quantiles(differences)
	round := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	f.row(fmt.Sprintf("pod start, %d pods of the mesh", n), "p50 %v, p99 %v", round(in50), round(in99))
	f.row(fmt.Sprintf("pod start, %d equal pods outside, beside them", n), "p50 %v, p99 %v", round(out50), round(out99))
	f.row("added by capture", "p50 %v (of pairs %v), p99 %v", round(in50-out50), round(d50), round(in99-out99))
	if in50-out50 > time.Second {
		t.Errorf("capture adds %v to a pod's start", in50-out50)
	}
}

// startOne makes a pod, takes the time until its program's first act, and deletes it.
func (f *figures) startOne(ns, name, node string, in bool) (time.Duration, error) {
	ctx := context.Background()
	mode := map[bool]string{true: "ambient", false: "none"}[in]
	zero := int64(0)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"istio.io/dataplane-mode": mode}},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: &zero,
			Containers: []corev1.Container{{Name: "first", Image: f.Image("ambit-sample"), Args: []string{"load", "first"}}},
		},
	}
	pods := f.api.CoreV1().Pods(ns)
	begin := time.Now()
	if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	for ; ; time.Sleep(50 * time.Millisecond) { // between two looks at another machine
		out, err := pods.GetLogs(name, &corev1.PodLogOptions{}).DoRaw(ctx)
		var first load.First
		if err == nil && json.Unmarshal(out, &first) == nil {
			if first.Captured != in {
				return 0, fmt.Errorf("pod %s: captured %v at its first act", name, first.Captured)
			}
			return time.Unix(0, first.At).Sub(begin), pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
		}
		if time.Since(begin) > patience {
			return 0, fmt.Errorf("pod %s has not started: %w", name, err)
		}
	}
}

// labelled: pods that run already, on all nodes, from the label on their namespace to their annotation.
func (f *figures) labelled(t *testing.T) {
	n := f.of(30, 200)
	ns := f.Namespace(t, "crowded")
	f.apply(t, ns, fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: many}, spec: {replicas: %d, selector: {matchLabels: {app: many}},
  template: {metadata: {labels: {app: many}}, spec: {terminationGracePeriodSeconds: 0, enableServiceLinks: false, automountServiceAccountToken: false,
    containers: [{name: app, image: IMAGE, args: [sleep, infinity]}]}}}}`, n))
	f.Kubectl(t, "rollout", "status", "-n", ns, "deployment/many", "--timeout=5m")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w, err := f.api.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := f.api.CoreV1().Namespaces().Patch(ctx, ns, "application/merge-patch+json", []byte(`{"metadata":{"labels":{"istio.io/dataplane-mode":"ambient"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	begin, seen := time.Now(), map[string]bool{}
	var waits []time.Duration
	for len(waits) < n {
		e, ok := <-w.ResultChan()
		if !ok {
			t.Fatalf("%d of %d pods are captured after %v", len(waits), n, time.Since(begin))
		}
		if p, ok := e.Object.(*corev1.Pod); ok && !seen[p.Name] && p.Annotations["ambient.istio.io/redirection"] == "enabled" {
			seen[p.Name] = true
			waits = append(waits, time.Since(begin))
		}
	}
	p50, p99 := quantiles(waits)
	f.row(fmt.Sprintf("label to captured, %d running pods", n), "p50 %v, p99 %v, all %v", p50.Round(time.Millisecond), p99.Round(time.Millisecond), waits[n-1].Round(time.Millisecond))
	if p99 > time.Minute {
		t.Errorf("label to captured takes %v", p99)
	}
}

// policies: from the API server's word that a DENY policy is stored, or gone, to the first connection that it decides.
func (f *figures) policies(t *testing.T) {
	probe := f.start(t, f.ns, "client", "ambit-sample", "load", "verdicts", "server:9000")
	probe.hear(t, "in")
	path := "/apis/security.istio.io/v1/namespaces/" + f.ns + "/authorizationpolicies"
	policy := fmt.Sprintf(`{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "flips"}, "spec": {
  "selector": {"matchLabels": {"app": "server"}}, "action": "DENY", "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/%s/sa/client"]}}]}]}}`, f.ns)
	n := f.of(10, 50)
	var waits []time.Duration
	for range n {
		for _, change := range []struct {
			request *rest.Request
			verdict string
		}{
			{f.api.CoreV1().RESTClient().Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body([]byte(policy)), "out"},
			{f.api.CoreV1().RESTClient().Delete().AbsPath(path, "flips"), "in"},
		} {
			if err := change.request.Do(t.Context()).Error(); err != nil {
				t.Fatal(err)
			}
			accepted := time.Now()
			probe.hear(t, change.verdict)
			waits = append(waits, time.Since(accepted))
		}
	}
	probe.in.Close() // or it goes on in its pod
	p50, p99 := quantiles(waits)
	f.row(fmt.Sprintf("AuthorizationPolicy accepted to enforced, %d changes", 2*n), "p50 %v, p99 %v", p50.Round(time.Millisecond), p99.Round(time.Millisecond))
	if p50 > 5*time.Second {
		t.Errorf("a policy is enforced after %v", p50)
	}
}
