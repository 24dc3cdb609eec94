package install

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// NotReady says which object was not ready in time, and all that is known about why.
type NotReady struct {
	Component, Object string
	Within            time.Duration
	// Pods are those that are not ready; Events those of the object itself.
	Pods   []PodTrouble
	Events []string
	// Do is what to do about it.
	Do string
}

// PodTrouble is one pod that is not ready.
type PodTrouble struct {
	Name, Node  string
	Why         []string // states of containers, conditions
	Events, Log []string // the last
}

func (e *NotReady) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s is not ready after %s", e.Component, e.Object, e.Within.Round(time.Second))
	for _, p := range e.Pods {
		fmt.Fprintf(&b, "\n  pod %s", p.Name)
		if p.Node != "" {
			fmt.Fprintf(&b, " on node %s", p.Node)
		}
		for _, w := range p.Why {
			fmt.Fprintf(&b, "\n    %s", w)
		}
		for _, w := range p.Events {
			fmt.Fprintf(&b, "\n    event: %s", w)
		}
		for _, w := range p.Log {
			fmt.Fprintf(&b, "\n    log: %s", w)
		}
	}
	for _, w := range e.Events {
		fmt.Fprintf(&b, "\n  event: %s", w)
	}
	fmt.Fprintf(&b, "\n  %s", e.Do)
	return b.String()
}

// notReady finds out why an object is not ready.
func (i *Installer) notReady(ctx context.Context, step Step, o *Object, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	e := &NotReady{Component: step.Name, Object: describe(o), Within: within}
	labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
	if len(labels) > 0 {
		pods, err := i.Cluster.list(ctx, podKind(), o.GetNamespace(), metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labels}))
		if err != nil {
			e.Events = append(e.Events, "(its pods cannot be listed: "+err.Error()+")")
		}
		for n := range pods {
			if len(e.Pods) < 3 && !podReady(&pods[n]) {
				e.Pods = append(e.Pods, i.trouble(ctx, &pods[n]))
			}
		}
	}
	if len(e.Pods) == 0 {
		e.Events = append(e.Events, i.events(ctx, o)...)
		if o.GetKind() == "Deployment" { // what keeps its pods from being made is told of its replica set
			sets, _ := i.Cluster.list(ctx, kind{"apps", "v1", "ReplicaSet", "replicasets", false}, o.GetNamespace(), metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labels}))
			for n := range sets {
				e.Events = append(e.Events, i.events(ctx, &sets[n])...)
			}
		}
	}
	e.Do = advice(e, o.GetNamespace())
	return e
}

func podReady(pod *Object) bool {
	conditions, _, _ := unstructured.NestedSlice(pod.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		m, _ := c.(map[string]any)
		return m["type"] == "Ready" && m["status"] == "True"
	})
}

func (i *Installer) trouble(ctx context.Context, pod *Object) PodTrouble {
	t := PodTrouble{Name: pod.GetName()}
	t.Node, _, _ = unstructured.NestedString(pod.Object, "spec", "nodeName")
	conditions, _, _ := unstructured.NestedSlice(pod.Object, "status", "conditions")
	for _, c := range conditions {
		if m, _ := c.(map[string]any); m["type"] == "PodScheduled" && m["status"] == "False" {
			t.Why = append(t.Why, fmt.Sprintf("not scheduled: %v", m["message"]))
		}
	}
	started := false
	for _, list := range []string{"initContainerStatuses", "containerStatuses"} {
		statuses, _, _ := unstructured.NestedSlice(pod.Object, "status", list)
		for _, s := range statuses {
			m, _ := s.(map[string]any)
			t.Why = append(t.Why, containerWhy(m)...)
			started = started || at(m, "state", "running") != nil || at(m, "lastState", "terminated") != nil || at(m, "state", "terminated") != nil
		}
	}
	t.Events = i.events(ctx, pod)
	if started {
		t.Log = i.log(ctx, pod)
	}
	return t
}

// containerWhy is what the state of a container says.
func containerWhy(status map[string]any) []string {
	var why []string
	name := text(status["name"])
	if w := subtree(status, "state", "waiting"); w != nil {
		why = append(why, strings.TrimSuffix(fmt.Sprintf("container %s waits: %s: %s", name, text(w["reason"]), text(w["message"])), ": "))
	}
	for _, s := range []string{"state", "lastState"} {
		if e := subtree(status, s, "terminated"); e != nil {
			why = append(why, strings.TrimSuffix(fmt.Sprintf("container %s ended: %s, exit code %s: %s", name, text(e["reason"]), text(e["exitCode"]), text(e["message"])), ": "))
		}
	}
	if ready, _ := status["ready"].(bool); !ready && at(status, "state", "running") != nil {
		why = append(why, fmt.Sprintf("container %s runs and does not say that it is ready", name))
	}
	return why
}

// events are the last warnings about an object.
func (i *Installer) events(ctx context.Context, o *Object) []string {
	k := kind{"", "v1", "Event", "events", false}
	l, err := i.Cluster.of(k, o.GetNamespace()).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.name=" + o.GetName() + ",involvedObject.kind=" + o.GetKind() + ",type=Warning",
	})
	if err != nil {
		return []string{"(events cannot be read: " + err.Error() + ")"}
	}
	slices.SortStableFunc(l.Items, func(a, b Object) int {
		return strings.Compare(text(a.Object["lastTimestamp"]), text(b.Object["lastTimestamp"]))
	})
	var all []string
	for _, e := range l.Items[max(0, len(l.Items)-3):] {
		all = append(all, text(e.Object["reason"])+": "+text(e.Object["message"]))
	}
	return all
}

// log is the end of a pod's log, of the run before if the present one has not said anything.
func (i *Installer) log(ctx context.Context, pod *Object) []string {
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	if len(containers) == 0 {
		return nil
	}
	path := "/api/v1/namespaces/" + pod.GetNamespace() + "/pods/" + pod.GetName() + "/log"
	query := url.Values{"tailLines": {"5"}, "container": {nameOf(containers[0])}}
	b, err := i.Cluster.read(ctx, path, query)
	if err != nil || len(strings.TrimSpace(string(b))) == 0 {
		query.Set("previous", "true")
		if before, perr := i.Cluster.read(ctx, path, query); perr == nil {
			b, err = before, nil
		}
	}
	if err != nil {
		return []string{"(cannot be read: " + err.Error() + ")"}
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	return lines
}

// advice is what to do about what was found.
func advice(e *NotReady, namespace string) string {
	all := e.Error()
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(all, w) })
	}
	switch {
	case has("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName"):
		return "do: make the image reachable for the nodes: load it onto them, or name a registry that has it with --set hub=… --set tag=… (and global.imagePullSecrets if it asks for a password)"
	case has("violates PodSecurity"):
		return "do: kubectl label namespace " + namespace + " --overwrite pod-security.kubernetes.io/enforce=privileged; then install again"
	case has("insufficient quota", "exceeded quota"):
		return "do: GKE and others allow system-node-critical pods only where a ResourceQuota says so: --set values.global.platform=gke"
	case has("Insufficient cpu", "Insufficient memory"):
		return "do: the nodes have no room: make some, or ask for less with --set values.<component>.resources.requests.cpu=…"
	case has("not scheduled"):
		return "do: no node takes the pod: look at its node selector, tolerations and affinity"
	case has("MountVolume", "FailedMount", "istio-ca-root-cert"):
		return "do: a volume of the pod is not there; if it is istio-ca-root-cert, istiod does not write: kubectl logs -n " + namespace + " deployment/istiod"
	case has("OOMKilled"):
		return "do: give the container more memory: --set values.<component>.resources.limits.memory=…"
	case has("CrashLoopBackOff", "exit code"):
		return "do: the program ends by itself; its log above says why. kubectl logs -n " + namespace + " <pod> --previous has all of it"
	}
	return "do: look at kubectl describe in namespace " + namespace + ", then install again: what is in place stays; --readiness-timeout gives it longer"
}
