package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/test/lab"
	"github.com/ambit-mesh/ambit/test/lab/figures"
)

// policies measures from a policy's YAML to its effect: an open connection cut, new ones refused; and back.
func (w *world) policies(ctx context.Context, r *result) error {
	rounds := 30
	if w.conf.short {
		rounds = 5
	}
	for _, l := range w.lanes {
		if l.name != ambit && l.name != istio {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		watcher, err := w.Begin(ctx, l.client, lab.Load, "watch", "-to", l.to)
		if err != nil {
			return err
		}
		defer watcher.Stop()
		seen := map[string]time.Time{}
		until := func(whats ...string) error {
			for _, what := range whats {
				for seen[what].IsZero() {
					var e figures.Event
					if err := watcher.Next(&e); err != nil {
						return fmt.Errorf("%s: waiting for %s: %w", l.name, what, err)
					}
					seen[e.What] = e.At
				}
			}
			return nil
		}
		if err := until("open", "allowed"); err != nil {
			return err
		}
		yaml := fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: cut, namespace: %s}\nspec: {action: DENY, rules: [{to: [{operation: {ports: ['9000']}}]}]}\n", l.server.Namespace)
		kind, _ := kinds.Find("authorizationpolicies")
		for range rounds {
			clear(seen)
			start := time.Now()
			if err := w.Apply(ctx, yaml); err != nil {
				return err
			}
			if err := until("cut", "refused"); err != nil {
				return err
			}
			r.times["policy to open connections cut, "+l.name] = append(r.times["policy to open connections cut, "+l.name], seen["cut"].Sub(start))
			r.times["policy to new connections refused, "+l.name] = append(r.times["policy to new connections refused, "+l.name], seen["refused"].Sub(start))
			clear(seen)
			start = time.Now()
			if err := w.Delete(ctx, kind, l.server.Namespace, "cut", -1); err != nil {
				return err
			}
			if err := until("open", "allowed"); err != nil {
				return err
			}
			r.times["policy gone to connections allowed, "+l.name] = append(r.times["policy gone to connections allowed, "+l.name], seen["allowed"].Sub(start))
		}
	}
	return nil
}

// crowd is how many pods are labelled at once.
const crowd = 50

// labels measures from a namespace's label to each pod's capture, and back.
func (w *world) labels(ctx context.Context, r *result) error {
	var yaml strings.Builder
	yaml.WriteString(lab.Namespace("crowd", false))
	nodes := []string{"node-2", "node-3"}
	for i := range crowd {
		fmt.Fprintf(&yaml, "apiVersion: v1\nkind: Pod\nmetadata: {name: p%d, namespace: crowd, labels: {app: crowd}}\nspec:\n  nodeSelector: {kubernetes.io/hostname: %s}\n  terminationGracePeriodSeconds: 1\n  containers: [{name: app, image: curlimages/curl, command: [sleep, infinity]}]\n---\n", i, nodes[i%len(nodes)])
	}
	if err := w.Apply(ctx, yaml.String()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if _, err := w.reached(ctx, func(p *corev1.Pod) bool { return ready(p) }); err != nil {
		return err
	}
	rounds := 4
	if w.conf.short {
		rounds = 1
	}
	ns, _ := kinds.Find("namespaces")
	mode := func(v string) error {
		_, err := w.Patch(ctx, ns, "", "crowd", map[string]any{"metadata": map[string]any{"labels": map[string]string{mesh.LabelDataplaneMode: v}}})
		return err
	}
	for range rounds {
		for _, step := range []struct {
			mode, what string
			captured   bool
		}{{mesh.DataplaneModeAmbient, "label to captured, 50 pods", true}, {mesh.DataplaneModeNone, "label gone to released, 50 pods", false}} {
			start := time.Now()
			if err := mode(step.mode); err != nil {
				return err
			}
			at, err := w.reached(ctx, func(p *corev1.Pod) bool {
				return (p.Annotations[mesh.AnnotationRedirection] == mesh.RedirectionEnabled) == step.captured
			})
			if err != nil {
				return err
			}
			for _, t := range at {
				r.times[step.what] = append(r.times[step.what], t.Sub(start))
			}
			if step.captured {
				if err := w.Exec(ctx, lab.Pod{Namespace: "crowd", Name: "p7"}, nil, "grep", "-q", ":3A99 ", "/proc/net/tcp", "/proc/net/tcp6"); err != nil {
					return fmt.Errorf("a pod that counts as captured has nobody at port 15001: %w", err)
				}
			}
		}
	}
	return w.Delete(ctx, ns, "", "crowd", -1)
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// reached is when each pod of the crowd first was as wanted.
func (w *world) reached(ctx context.Context, ok func(*corev1.Pod) bool) (map[string]time.Time, error) {
	at := map[string]time.Time{}
	err := w.Watch(ctx, "crowd", func(p *corev1.Pod, now time.Time) bool {
		if at[p.Name].IsZero() && ok(p) {
			at[p.Name] = now
		}
		return len(at) == crowd
	})
	if err != nil {
		return nil, fmt.Errorf("%d of %d pods: %w", len(at), crowd, err)
	}
	return at, nil
}

// plugin times the CNI plugin under the node's agent.
func (w *world) plugin(ctx context.Context, r *result) error {
	k, _ := kinds.Find("pods")
	pods, err := w.List(ctx, k, mesh.SystemNamespace, "k8s-app=istio-cni-node")
	if err != nil {
		return err
	}
	for _, o := range pods {
		if p := o.(*corev1.Pod); p.Spec.NodeName == "node-2" {
			return w.Exec(ctx, lab.Pod{Namespace: p.Namespace, Name: p.Name}, &r.plugin, lab.Load, "cni", "-count", "40", "-to", "plain/direct-client")
		}
	}
	return fmt.Errorf("node-2 has no agent")
}
