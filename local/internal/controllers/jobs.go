package controllers

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

// jobs run pods until enough of them have succeeded.
func (c *Controllers) jobs() error {
	var failed []error
	for _, j := range store.List[*batchv1.Job](c.Store, "") {
		if j.DeletionTimestamp == nil {
			if err := c.job(j, time.Now()); err != nil {
				failed = append(failed, fmt.Errorf("%s/%s: %w", j.Namespace, j.Name, err))
			}
		}
	}
	return errors.Join(failed...)
}

// ended is the condition that says how a job ended, if it has.
func ended(j *batchv1.Job) *batchv1.JobCondition {
	for i, cond := range j.Status.Conditions {
		if (cond.Type == batchv1.JobComplete || cond.Type == batchv1.JobFailed) && cond.Status == corev1.ConditionTrue {
			return &j.Status.Conditions[i]
		}
	}
	return nil
}

func (c *Controllers) job(j *batchv1.Job, now time.Time) error {
	if j.Spec.Selector == nil { // Kubernetes gives a job its selector when it is created
		own := map[string]string{batchv1.ControllerUidLabel: string(j.UID)}
		return update(c, j, func(o *batchv1.Job) {
			o.Spec.Selector = &metav1.LabelSelector{MatchLabels: own}
			if o.Spec.Template.Labels == nil {
				o.Spec.Template.Labels = map[string]string{}
			}
			o.Spec.Template.Labels[batchv1.ControllerUidLabel], o.Spec.Template.Labels[batchv1.JobNameLabel] = string(j.UID), j.Name
			o.Spec.Template.Labels["controller-uid"], o.Spec.Template.Labels["job-name"] = string(j.UID), j.Name
		})
	}
	if end := ended(j); end != nil {
		if ttl := j.Spec.TTLSecondsAfterFinished; ttl != nil && c.passed(now, end.LastTransitionTime.Add(time.Duration(*ttl)*time.Second)) {
			return c.remove(j, nil)
		}
		return nil
	}
	state := stateOf(j, c.owned(j.Namespace, j.UID))
	end := c.verdict(j, state, now)
	var failed []error
	want := 0
	switch {
	case end != nil || j.Spec.Suspend != nil && *j.Spec.Suspend:
		for _, p := range state.active {
			failed = append(failed, c.remove(p, nil))
		}
	case c.passed(now, state.retryAt):
		want = state.want(j) - len(state.active)
	}
	for range max(want, 0) {
		failed = append(failed, c.create(jobPod(j, state.freeIndex(j))))
	}
	failed = append(failed, update(c, j, func(o *batchv1.Job) { state.show(o, end, now) }))
	return errors.Join(failed...)
}

// passed reports whether a time has come, and has the controllers look again when it does.
func (c *Controllers) passed(now, at time.Time) bool {
	if !now.Before(at) {
		return true
	}
	if c.due.IsZero() || at.Before(c.due) {
		c.due = at
	}
	return false
}

// verdict says how a job ends now, or nil.
func (c *Controllers) verdict(j *batchv1.Job, s jobState, now time.Time) *batchv1.JobCondition {
	end := func(kind batchv1.JobConditionType, reason, text string) *batchv1.JobCondition {
		at := metav1.NewTime(now.Truncate(time.Second))
		return &batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: text, LastProbeTime: at, LastTransitionTime: at}
	}
	limit := j.Spec.ActiveDeadlineSeconds
	switch {
	case j.Spec.Completions != nil && s.succeeded >= *j.Spec.Completions, j.Spec.Completions == nil && s.succeeded > 0 && len(s.active) == 0:
		return end(batchv1.JobComplete, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	case s.tries > *j.Spec.BackoffLimit:
		return end(batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	case limit != nil && j.Status.StartTime != nil && c.passed(now, j.Status.StartTime.Add(time.Duration(*limit)*time.Second)):
		return end(batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
	}
	return nil
}

// jobState is what a job's pods tell.
type jobState struct {
	active             []*corev1.Pod
	ready, terminating int32
	succeeded, failed  int32
	tries              int32 // failed pods, and restarts of containers that failed
	retryAt            time.Time
	indexes            map[int]bool // taken or done
}

// Kubernetes waits this long after a failed pod, twice as long after each further one, up to a limit.
const (
	jobBackoff    = 10 * time.Second
	jobBackoffMax = 6 * time.Minute
)

func stateOf(j *batchv1.Job, pods []*corev1.Pod) jobState {
	s := jobState{indexes: map[int]bool{}}
	var last time.Time
	for _, p := range pods {
		index, err := strconv.Atoi(p.Labels[batchv1.JobCompletionIndexAnnotation])
		holds := err == nil && p.Status.Phase != corev1.PodFailed && p.DeletionTimestamp == nil
		for _, cs := range p.Status.ContainerStatuses {
			if j.Spec.Template.Spec.RestartPolicy == corev1.RestartPolicyOnFailure {
				s.tries += cs.RestartCount
			}
			if t := cs.State.Terminated; t != nil && p.Status.Phase == corev1.PodFailed && t.FinishedAt.After(last) {
				last = t.FinishedAt.Time
			}
		}
		switch {
		case p.Status.Phase == corev1.PodSucceeded:
			s.succeeded++
		case p.Status.Phase == corev1.PodFailed:
			s.failed++
			s.tries++
		case p.DeletionTimestamp != nil:
			s.terminating++
		default:
			s.active = append(s.active, p)
			if ready(p) {
				s.ready++
			}
		}
		if holds {
			s.indexes[index] = true
		}
	}
	if s.failed > 0 && !last.IsZero() {
		s.retryAt = last.Add(min(jobBackoff<<min(s.failed-1, 10), jobBackoffMax))
	}
	return s
}

// want is how many pods should be at work.
func (s jobState) want(j *batchv1.Job) int {
	n := int(*j.Spec.Parallelism)
	if j.Spec.Completions != nil {
		return min(n, int(*j.Spec.Completions-s.succeeded))
	}
	if s.succeeded > 0 {
		return len(s.active) // a queue of work that is done gets no further pods
	}
	return n
}

// freeIndex takes the lowest index that no pod has, for jobs that count their pods; -1 for others.
func (s jobState) freeIndex(j *batchv1.Job) int {
	if j.Spec.CompletionMode == nil || *j.Spec.CompletionMode != batchv1.IndexedCompletion {
		return -1
	}
	n := 0
	for s.indexes[n] {
		n++
	}
	s.indexes[n] = true
	return n
}

func (s jobState) show(o *batchv1.Job, end *batchv1.JobCondition, now time.Time) {
	st := &o.Status
	if st.StartTime == nil && (o.Spec.Suspend == nil || !*o.Spec.Suspend) {
		st.StartTime = new(metav1.NewTime(now.Truncate(time.Second)))
	}
	st.Active, st.Succeeded, st.Failed = int32(len(s.active)), s.succeeded, s.failed
	st.Ready, st.Terminating = &s.ready, &s.terminating
	if end == nil {
		return
	}
	st.Active, st.Ready = 0, new(int32(0))
	st.Conditions = append(st.Conditions, *end)
	if end.Type == batchv1.JobComplete {
		st.CompletionTime = new(end.LastTransitionTime)
	}
}

func jobPod(j *batchv1.Job, index int) *corev1.Pod {
	p := newPod(j, j.Spec.Template, nil)
	if index < 0 {
		return p
	}
	n := strconv.Itoa(index)
	p.GenerateName = j.Name + "-" + n + "-"
	p.Labels[batchv1.JobCompletionIndexAnnotation], p.Annotations[batchv1.JobCompletionIndexAnnotation] = n, n
	p.Spec.Hostname, p.Spec.Subdomain = j.Name+"-"+n, j.Spec.Template.Spec.Subdomain
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			list[i].Env = append(list[i].Env, corev1.EnvVar{Name: "JOB_COMPLETION_INDEX", Value: n})
		}
	}
	return p
}
