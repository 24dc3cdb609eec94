package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

const db = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: default}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: echo, volumeMounts: [{name: data, mountPath: /data}]}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
`

// names lists the pods that are not being deleted, sorted, with a * behind the ready ones.
func (c *cluster) names() string {
	var out []string
	for _, p := range store.List[*corev1.Pod](c.store, "") {
		if p.DeletionTimestamp == nil {
			name := p.Name
			if ready(p) {
				name += "*"
			}
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestStatefulSetGrowsAndShrinksInOrder(t *testing.T) {
	c := newCluster(t)
	c.apply(db)
	var seen []string
	note := func() {
		if now := c.names(); len(seen) == 0 || seen[len(seen)-1] != now {
			seen = append(seen, now)
		}
	}
	c.settle(note)
	want := []string{"db-0", "db-0* db-1", "db-0* db-1* db-2", "db-0* db-1* db-2*"}
	if !slices.Equal(seen, want) {
		t.Errorf("grew by %q, want %q", seen, want)
	}
	p, err := store.Get[*corev1.Pod](c.store, "default", "db-1")
	if err != nil || p.Spec.Hostname != "db-1" || p.Spec.Subdomain != "db" || p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "data-db-1" {
		t.Fatalf("db-1: %+v, %v", p, err)
	}
	hosts := ""
	for _, s := range store.List[*discoveryv1.EndpointSlice](c.store, "") {
		for _, e := range s.Endpoints {
			hosts += *e.Hostname + " "
		}
	}
	if hosts != "db-0 db-1 db-2 " {
		t.Errorf("host names in the slices: %q", hosts)
	}
	seen = nil
	c.apply(strings.Replace(db, "replicas: 3", "replicas: 1", 1))
	c.settle(note)
	if want := []string{"db-0* db-1*", "db-0*"}; !slices.Equal(seen, want) {
		t.Errorf("shrank by %q, want %q", seen, want)
	}
	s, err := store.Get[*appsv1.StatefulSet](c.store, "default", "db")
	if err != nil || s.Status.ReadyReplicas != 1 || s.Status.Replicas != 1 || s.Status.ObservedGeneration != 2 {
		t.Errorf("status %+v, %v", s.Status, err)
	}
}

func TestStatefulSetUpdatesFromTheLast(t *testing.T) {
	c := newCluster(t)
	c.apply(db)
	c.settle(nil)
	before := map[string]string{}
	for _, p := range store.List[*corev1.Pod](c.store, "") {
		before[p.Name] = string(p.UID)
	}
	c.apply(strings.Replace(db, "image: echo", "image: curl", 1))
	var replaced []string
	c.settle(func() {
		missing := 0
		for n := range 3 {
			name := fmt.Sprintf("db-%d", n)
			p, err := store.Get[*corev1.Pod](c.store, "default", name)
			if err != nil || !ready(p) || p.DeletionTimestamp != nil {
				missing++
			}
			if err == nil && string(p.UID) != before[name] && !slices.Contains(replaced, name) {
				replaced = append(replaced, name)
			}
		}
		if missing > 1 {
			t.Errorf("%d pods away at once: %s", missing, c.names())
		}
	})
	if want := []string{"db-2", "db-1", "db-0"}; !slices.Equal(replaced, want) {
		t.Errorf("replaced %q, want %q", replaced, want)
	}
	s, _ := store.Get[*appsv1.StatefulSet](c.store, "default", "db")
	if s.Status.CurrentRevision != s.Status.UpdateRevision || s.Status.UpdatedReplicas != 3 || s.Status.CurrentReplicas != 3 {
		t.Errorf("status %+v", s.Status)
	}
}

func TestParallelStatefulSetStartsAllAtOnce(t *testing.T) {
	c := newCluster(t)
	c.apply(strings.Replace(db, "serviceName: db", "serviceName: db\n  podManagementPolicy: Parallel", 1))
	if err := c.c.Reconcile(); err != nil {
		t.Fatal(err)
	}
	if got := c.names(); got != "db-0 db-1 db-2" {
		t.Errorf("pods after one pass: %q", got)
	}
}

const pi = `
apiVersion: batch/v1
kind: Job
metadata: {name: pi, namespace: default}
spec:
  completions: 3
  parallelism: 2
  backoffLimit: 1
  template: {spec: {restartPolicy: Never, containers: [{name: pi, image: echo}]}}
`

// end gives every pod at work a phase and tells how many there were.
func (c *cluster) end(phase corev1.PodPhase) int {
	c.Helper()
	n := 0
	for _, p := range store.List[*corev1.Pod](c.store, "") {
		if active(p) {
			n++
			if err := update(c.c, p, func(p *corev1.Pod) { p.Status.Phase = phase }); err != nil {
				c.Fatal(err)
			}
		}
	}
	return n
}

func (c *cluster) job() *batchv1.Job {
	c.Helper()
	j, err := store.Get[*batchv1.Job](c.store, "default", "pi")
	if err != nil {
		c.Fatal(err)
	}
	return j
}

func TestJobRunsUntilEnoughSucceeded(t *testing.T) {
	c := newCluster(t)
	c.apply(pi)
	for _, want := range []int{2, 1} { // never more than still needed
		c.settle(nil)
		if got := c.end(corev1.PodSucceeded); got != want {
			t.Errorf("%d pods at work, want %d", got, want)
		}
	}
	c.settle(nil)
	j := c.job()
	if e := ended(j); e == nil || e.Type != batchv1.JobComplete || j.Status.Succeeded != 3 || j.Status.CompletionTime == nil || j.Status.Active != 0 {
		t.Errorf("status %+v", j.Status)
	}
	if pods := c.c.owned("default", j.UID); len(pods) != 3 {
		t.Errorf("%d pods kept for their logs, want 3", len(pods))
	}
	c.apply(pi) // as it was: what the server set stays
	c.settle(nil)
	if c.job().Spec.Selector == nil || len(c.c.owned("default", j.UID)) != 3 {
		t.Error("applying it again changed it")
	}
}

func TestJobFailsBeyondItsLimit(t *testing.T) {
	c := newCluster(t)
	c.apply(strings.Replace(pi, "parallelism: 2", "parallelism: 1", 1))
	for range 2 {
		c.settle(nil)
		if got := c.end(corev1.PodFailed); got != 1 {
			t.Fatalf("%d pods at work, want 1", got)
		}
	}
	c.settle(nil)
	if e := ended(c.job()); e == nil || e.Type != batchv1.JobFailed || e.Reason != batchv1.JobReasonBackoffLimitExceeded {
		t.Errorf("status %+v", c.job().Status)
	}
	if got := c.end(corev1.PodFailed); got != 0 {
		t.Errorf("%d pods at work after the end", got)
	}
}

func TestIndexedJobTellsEachPodItsIndex(t *testing.T) {
	c := newCluster(t)
	c.apply(strings.Replace(pi, "completions: 3", "completions: 3\n  completionMode: Indexed", 1))
	var seen []string
	for range 2 {
		c.settle(nil)
		for _, p := range store.List[*corev1.Pod](c.store, "") {
			if active(p) {
				env := p.Spec.Containers[0].Env
				seen = append(seen, env[len(env)-1].Name+"="+env[len(env)-1].Value)
			}
		}
		c.end(corev1.PodSucceeded)
	}
	slices.Sort(seen)
	if want := []string{"JOB_COMPLETION_INDEX=0", "JOB_COMPLETION_INDEX=1", "JOB_COMPLETION_INDEX=2"}; !slices.Equal(seen, want) {
		t.Errorf("indexes %q, want %q", seen, want)
	}
}

func TestJobsOfTime(t *testing.T) {
	c := newCluster(t)
	c.apply(strings.Replace(pi, "completions: 3", "completions: 3\n  activeDeadlineSeconds: 60\n  ttlSecondsAfterFinished: 100", 1))
	c.settle(nil)
	start := c.job().Status.StartTime.Time
	if !c.c.due.Equal(start.Add(time.Minute)) {
		t.Errorf("the next look is due at %v, want a minute after %v", c.c.due, start)
	}
	if err := c.c.job(c.job(), start.Add(61*time.Second)); err != nil {
		t.Fatal(err)
	}
	if e := ended(c.job()); e == nil || e.Reason != batchv1.JobReasonDeadlineExceeded {
		t.Fatalf("after its deadline: %+v", c.job().Status)
	}
	if err := c.c.job(c.job(), start.Add(162*time.Second)); err != nil {
		t.Fatal(err)
	}
	if left := store.List[*batchv1.Job](c.store, ""); len(left) != 0 {
		t.Error("a job outlived its time to live")
	}
}

func TestAFailedPodIsFollowedByAPause(t *testing.T) {
	c := newCluster(t)
	c.apply(pi)
	c.settle(nil)
	at := time.Now().Truncate(time.Second)
	for _, p := range store.List[*corev1.Pod](c.store, "")[:1] {
		if err := update(c.c, p, func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodFailed
			done := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}
			done.Terminated.FinishedAt.Time = at
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "pi", State: done}}
		}); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int { return len(stateOf(c.job(), c.c.owned("default", c.job().UID)).active) }
	if err := c.c.job(c.job(), at.Add(9*time.Second)); err != nil || count() != 1 {
		t.Errorf("within the pause: %v, %d pods at work, want 1", err, count())
	}
	if err := c.c.job(c.job(), at.Add(11*time.Second)); err != nil || count() != 2 {
		t.Errorf("after the pause: %v, %d pods at work, want 2", err, count())
	}
}
