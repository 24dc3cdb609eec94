package cli

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWhyAPodDoesNotAnswer(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	node := func(s corev1.ConditionStatus) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: s, LastTransitionTime: ago(5 * time.Minute), Message: "Kubelet stopped posting node status."},
		}}}
	}
	pod := func(ready corev1.ConditionStatus, s corev1.ContainerStatus) *corev1.Pod {
		s.Name = "istio-proxy"
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "z", Namespace: "istio-system"}, Spec: corev1.PodSpec{NodeName: "n1"}, Status: corev1.PodStatus{
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}, ContainerStatuses: []corev1.ContainerStatus{s},
		}}
	}
	running := corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	crashing := corev1.ContainerStatus{
		RestartCount: 4, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", FinishedAt: ago(20 * time.Second)}},
	}
	pulling := corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		node *corev1.Node
		want string
	}{
		{"its node is away, whatever is said of the pod", pod(corev1.ConditionTrue, crashing), node(corev1.ConditionUnknown), "node n1 has not been ready for 5m: Kubelet stopped posting node status."},
		{"it crashes", pod(corev1.ConditionFalse, crashing), node(corev1.ConditionTrue), "its container istio-proxy waits: CrashLoopBackOff; it ended with exit code 1 (Error) 20s ago, restarted 4 times: see logs -n istio-system z --previous"},
		{"it has no image", pod(corev1.ConditionFalse, pulling), nil, "its container istio-proxy waits: ErrImagePull; see describe pod -n istio-system z"},
		{"it is not ready", pod(corev1.ConditionFalse, running), nil, "it runs and is not ready: see logs -n istio-system z"},
		{"nothing is wrong", pod(corev1.ConditionTrue, running), node(corev1.ConditionTrue), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := troubleOf(c.pod, c.node, now, func(words ...string) string { return strings.Join(words, " ") })
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
