package kubelet

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/local/internal/runtime"
)

// publish writes the pod's status as it is now, if that is news.
func (w *worker) publish() {
	w.publishing.Lock()
	defer w.publishing.Unlock()
	pod := w.pod()
	err := w.k.conf.Cluster.UpdatePod(pod.Namespace, pod.Name, func(p *corev1.Pod) error {
		if p.UID != w.uid {
			return ErrGone
		}
		next := w.status(p)
		if !equality.Semantic.DeepEqual(p.Status, next) {
			p.Status = next
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrGone) {
		w.log.Error("write the pod's status", "error", err)
	}
}

// status is the pod's, on top of what others wrote there.
func (w *worker) status(pod *corev1.Pod) corev1.PodStatus {
	s := *pod.Status.DeepCopy()
	w.mu.Lock()
	sandbox, inited, failed, waiting, message := w.sandbox, w.inited, w.failed, w.waiting, w.message
	start := w.start
	w.mu.Unlock()
	host := w.k.conf.Node.Addrs
	s.HostIP, s.HostIPs = host[0].String(), nil
	for _, a := range host {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: a.String()})
	}
	if s.StartTime == nil {
		s.StartTime = new(metav1.NewTime(start.Truncate(time.Second)))
	}
	s.PodIP, s.PodIPs = "", nil
	if sandbox != nil {
		for _, a := range sandbox.Addrs() {
			s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a.String()})
		}
		s.PodIP = s.PodIPs[0].IP
	}
	s.QOSClass = corev1.PodQOSBestEffort
	s.InitContainerStatuses, s.ContainerStatuses = nil, nil
	for _, c := range pod.Spec.InitContainers {
		s.InitContainerStatuses = append(s.InitContainerStatuses, w.ctrs[c.Name].status(waitReason(waiting, "PodInitializing"), message))
	}
	blocked := waiting
	if blocked == "" && !inited {
		blocked = "PodInitializing"
	}
	ready, running, done, bad := true, false, len(pod.Spec.Containers) > 0, false
	for _, c := range pod.Spec.Containers {
		st := w.ctrs[c.Name].status(waitReason(blocked, "ContainerCreating"), message)
		s.ContainerStatuses = append(s.ContainerStatuses, st)
		ready = ready && st.Ready
		running = running || st.State.Running != nil || st.RestartCount > 0 || st.LastTerminationState.Terminated != nil
		final := w.ctrs[c.Name].final()
		done = done && final
		bad = bad || final && st.State.Terminated != nil && st.State.Terminated.ExitCode != 0
	}
	s.Message, s.Reason = "", ""
	switch {
	case failed != "":
		s.Phase, s.Message, ready = corev1.PodFailed, failed, false
	case done && bad:
		s.Phase, ready = corev1.PodFailed, false
	case done:
		s.Phase, ready = corev1.PodSucceeded, false
	case inited && running:
		s.Phase = corev1.PodRunning
	default:
		s.Phase = corev1.PodPending
	}
	if pod.DeletionTimestamp != nil {
		ready = false
	}
	notReady := ""
	if !ready {
		notReady = "ContainersNotReady"
		if done {
			notReady = "PodCompleted"
		}
	}
	condition(&s, corev1.PodScheduled, true, "", "")
	condition(&s, "PodReadyToStartContainers", sandbox != nil, "", message)
	condition(&s, corev1.PodInitialized, inited, waitReason(map[bool]string{false: "ContainersNotInitialized"}[inited], ""), "")
	condition(&s, corev1.ContainersReady, ready, notReady, "")
	gates := ""
	for _, g := range pod.Spec.ReadinessGates {
		if !isTrue(s, g.ConditionType) {
			gates = "ReadinessGatesNotReady"
		}
	}
	condition(&s, corev1.PodReady, ready && gates == "", notReady+gates, "")
	return s
}

func waitReason(reason, otherwise string) string {
	if reason != "" {
		return reason
	}
	return otherwise
}

func isTrue(s corev1.PodStatus, t corev1.PodConditionType) bool {
	for _, c := range s.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// condition sets one, keeping when it last changed.
func condition(s *corev1.PodStatus, t corev1.PodConditionType, is bool, reason, message string) {
	status := corev1.ConditionFalse
	if is {
		status, message = corev1.ConditionTrue, ""
		reason = ""
	}
	next := corev1.PodCondition{Type: t, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second))}
	for i, c := range s.Conditions {
		if c.Type == t {
			if c.Status == status {
				next.LastTransitionTime = c.LastTransitionTime
			}
			s.Conditions[i] = next
			return
		}
	}
	s.Conditions = append(s.Conditions, next)
}

// final tells whether the container will not run again.
func (c *container) final() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.finished
}

// status is the container's. blocked is why it waits before it was ever tried.
func (c *container) status(blocked, message string) corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: "local://" + c.spec.Image, RestartCount: int32(c.attempt), Started: new(false),
	}
	var ended *runtime.Exit
	if c.run != nil {
		s.ContainerID = "ambit://" + c.run.ID
		select {
		case <-c.run.Done():
			ended = new(c.run.Exit())
		default:
		}
	}
	switch {
	case c.run != nil && ended == nil:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.run.Started.Truncate(time.Second))}
		s.Ready, s.Started = c.ready, new(c.started)
		if c.last != nil {
			s.LastTerminationState.Terminated = c.terminated(c.last, c.lastKilled)
		}
	case c.waiting != "":
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: c.waiting, Message: c.message}
		if ended != nil {
			s.LastTerminationState.Terminated = c.terminated(ended, c.killed)
		}
	case ended != nil:
		s.State.Terminated = c.terminated(ended, c.killed)
		s.Ready = c.init && c.finished && ended.Code == 0
	default:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: blocked, Message: message}
	}
	return s
}

// terminated says how a run ended and why kubelet ended it, if it did. c.mu is held.
func (c *container) terminated(e *runtime.Exit, why string) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: int32(e.Code), Signal: int32(e.Signal), Reason: "Completed", Message: why,
		StartedAt: metav1.NewTime(e.Started.Truncate(time.Second)), FinishedAt: metav1.NewTime(e.Finished.Truncate(time.Second)),
	}
	if c.run != nil {
		t.ContainerID = "ambit://" + c.run.ID
	}
	if e.Code != 0 {
		t.Reason = "Error"
	}
	return t
}

// withAddresses is the pod with its addresses in its status.
func (w *worker) withAddresses(pod *corev1.Pod) *corev1.Pod {
	w.mu.Lock()
	sandbox := w.sandbox
	w.mu.Unlock()
	pod = pod.DeepCopy()
	pod.Status.PodIPs = nil
	for _, a := range sandbox.Addrs() {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	pod.Status.PodIP = pod.Status.PodIPs[0].IP
	pod.Status.HostIP, pod.Status.HostIPs = w.k.conf.Node.Addrs[0].String(), nil
	for _, a := range w.k.conf.Node.Addrs {
		pod.Status.HostIPs = append(pod.Status.HostIPs, corev1.HostIP{IP: a.String()})
	}
	return pod
}

// event tells what happened to the pod.
func (w *worker) event(kind, reason, message string) {
	pod := w.pod()
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	err := w.k.conf.Cluster.Event(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: pod.Namespace, Name: fmt.Sprintf("%s.%x", pod.Name, time.Now().UnixNano())},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Type:           kind, Reason: reason, Message: message, FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: corev1.EventSource{Component: "kubelet", Host: w.k.conf.Node.Name},
	})
	if err != nil {
		w.log.Warn("record an event", "reason", reason, "error", err)
	}
}
