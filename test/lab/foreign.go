package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/mesh"
)

const (
	foreign = "foreign-ztunnel" // file, and name of the daemon set
	carries = "lab.ambit.dev/ztunnel"
)

// replace gives some nodes the foreign ztunnel in place of ours: the same pod, but for its program.
func (l *Lab) replace(ctx context.Context, nodes []string) error {
	all, err := l.List(ctx, kind("nodes"), "", "")
	if err != nil {
		return err
	}
	for _, n := range all {
		if err := l.Carry(ctx, n.GetName(), slices.Contains(nodes, n.GetName())); err != nil {
			return err
		}
	}
	set, err := l.Get(ctx, kind("daemonsets"), mesh.SystemNamespace, "ztunnel")
	if err != nil {
		return err
	}
	theirs := set.(*appsv1.DaemonSet).DeepCopy()
	theirs.ObjectMeta = metav1.ObjectMeta{Name: foreign, Namespace: mesh.SystemNamespace, Labels: map[string]string{"app": "ztunnel"}}
	theirs.Status = appsv1.DaemonSetStatus{}
	theirs.Spec.Selector.MatchLabels[carries] = foreign
	theirs.Spec.Template.Labels[carries] = foreign
	theirs.Spec.Template.Spec.NodeSelector = map[string]string{carries: foreign}
	at := &theirs.Spec.Template.Spec.Containers[0]
	at.Image, at.Command = foreign, []string{BinDir + "/" + foreign}
	// Where Istio's charts say more than ours must.
	at.Env = append(at.Env, corev1.EnvVar{Name: "AUTHZ_POLICY_INFO_LOGGING", Value: "true"}, corev1.EnvVar{Name: "ISTIO_META_ENABLE_HBONE", Value: "true"})
	yaml, err := kinds.Encode(theirs)
	if err != nil {
		return err
	}
	patch := map[string]any{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"nodeSelector": map[string]string{carries: "ambit"}}}}}
	if _, err := l.Patch(ctx, kind("daemonsets"), mesh.SystemNamespace, "ztunnel", patch); err != nil {
		return err
	}
	if _, err := l.Client.Apply(ctx, foreign, mesh.SystemNamespace, false, yaml); err != nil {
		return err
	}
	if err := l.Carried(ctx); err != nil {
		return err
	}
	l.log("%v carry the foreign ztunnel", nodes)
	return nil
}

// Carry says which ztunnel a node is to carry.
func (l *Lab) Carry(ctx context.Context, node string, theirs bool) error {
	which := "ambit"
	if theirs {
		which = foreign
	}
	_, err := l.Patch(ctx, kind("nodes"), "", node, map[string]any{"metadata": map[string]any{"labels": map[string]string{carries: which}}})
	return err
}

// Carried waits until every node has a ztunnel of the kind that it is to carry, ready, and no other.
func (l *Lab) Carried(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		why, err := l.carriage(ctx)
		if err != nil || why == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the nodes' ztunnels: %s", l.said(why))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// said adds what a pod, the first word of why, wrote last.
func (l *Lab) said(why string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	pod, _, _ := strings.Cut(why, ":")
	lines, err := l.Lines(ctx, mesh.SystemNamespace, pod)
	if err != nil {
		return why
	}
	return why + "; its last words:\n" + strings.Join(lines[max(0, len(lines)-10):], "\n")
}

func (l *Lab) carriage(ctx context.Context) (why string, err error) {
	nodes, err := l.List(ctx, kind("nodes"), "", "")
	if err != nil {
		return "", err
	}
	pods, err := l.List(ctx, kind("pods"), mesh.SystemNamespace, "app=ztunnel")
	if err != nil {
		return "", err
	}
	for _, n := range nodes {
		is := 0
		for _, p := range pods {
			pod := p.(*corev1.Pod)
			if pod.Spec.NodeName != n.GetName() {
				continue
			}
			is++
			if ready, why := client.RolledOut(pod); !ready {
				return pod.Name + ": " + why, nil
			}
			if want := n.GetLabels()[carries]; want == foreign != (pod.Labels[carries] == foreign) {
				return fmt.Sprintf("%s carries %s still", n.GetName(), pod.Name), nil
			}
		}
		if is != 1 {
			return fmt.Sprintf("%s has %d", n.GetName(), is), nil
		}
	}
	return "", nil
}

// Ztunnel is the name of the ztunnel pod of a node.
func (l *Lab) Ztunnel(ctx context.Context, node string) (string, error) {
	pods, err := l.List(ctx, kind("pods"), mesh.SystemNamespace, "app=ztunnel")
	if err != nil {
		return "", err
	}
	for _, p := range pods {
		if pod := p.(*corev1.Pod); pod.Spec.NodeName == node && pod.DeletionTimestamp == nil {
			return pod.Name, nil
		}
	}
	return "", fmt.Errorf("%s has no ztunnel", node)
}

func kind(word string) kinds.Kind {
	k, _ := kinds.Find(word)
	return k
}
