package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
)

func newLogs(s *scope) *cobra.Command {
	o := client.LogOptions{}
	var selector, since string
	var prefix, all bool
	c := &cobra.Command{
		Use: "logs (POD | KIND/NAME | -l SELECTOR)", Short: "Print the log of pods",
		Example: "  ambit local logs -n istio-system -l app=ztunnel --tail 20\n  ambit local logs deploy/productpage-v1 -f\n  ambit local logs deploy/sleep --since 5m --timestamps\n  ambit local logs deploy/web --previous",
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("tail") {
				o.Tail = -1
				if selector != "" {
					o.Tail = 10
				}
			}
			var err error
			if o.Since, err = sinceOf(since, c.Flag("since-time").Value.String(), time.Now()); err != nil {
				return err
			}
			if all && o.Container != "" {
				return usage("give -c or --all-containers, not both")
			}
			pods, err := s.podsFor(c.Context(), args, selector)
			if err != nil {
				return err
			}
			if selector == "" && len(pods) > 1 {
				fmt.Fprintf(s.env.Err, "Found %d pods, using pod/%s\n", len(pods), pods[0].Name)
				pods = pods[:1]
			}
			return s.logs(c.Context(), pods, o, prefix, all)
		},
	}
	c.Flags().StringVarP(&selector, "selector", "l", "", "pods with these labels")
	c.Flags().StringVarP(&o.Container, "container", "c", "", "container of the pod")
	c.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on as the log grows")
	c.Flags().BoolVarP(&o.Previous, "previous", "p", false, "of the container before its last restart")
	c.Flags().BoolVar(&o.Stamps, "timestamps", false, "begin each line with its time")
	c.Flags().IntVar(&o.Tail, "tail", -1, "lines from the end; -1 is all, and 10 is the default with a selector")
	c.Flags().StringVar(&since, "since", "", "only of the last while, such as 30s or 5m")
	c.Flags().String("since-time", "", "only since a time such as 2026-11-25T08:00:00Z")
	c.Flags().BoolVar(&all, "all-containers", false, "of every container of the pods")
	c.Flags().BoolVar(&prefix, "prefix", false, "begin each line with its pod")
	return c
}

// sinceOf is how far back a log is wanted; 0 is all of it.
func sinceOf(since, at string, now time.Time) (time.Duration, error) {
	switch {
	case since != "" && at != "":
		return 0, usage("give --since or --since-time, not both")
	case since != "":
		d, err := time.ParseDuration(since)
		if err != nil || d <= 0 {
			return 0, usage("--since %q: want a while such as 30s, 5m or 2h", since)
		}
		return d, nil
	case at != "":
		t, err := time.Parse(time.RFC3339, at)
		if err != nil {
			return 0, usage("--since-time %q: want a time such as 2026-11-25T08:00:00Z", at)
		}
		return max(now.Sub(t), time.Second), nil
	}
	return 0, nil
}

// logs copies the log of each pod's container, one after the other, or, followed, all at once by whole lines.
func (s *scope) logs(ctx context.Context, pods []*corev1.Pod, o client.LogOptions, prefix, all bool) error {
	var mu sync.Mutex // guards the output
	one := func(p *corev1.Pod, container string) error {
		o := o
		o.Container = container
		r, err := s.client().Logs(ctx, p.Namespace, p.Name, o)
		if err != nil {
			return err
		}
		defer r.Close()
		in := bufio.NewReader(r)
		for {
			line, err := in.ReadString('\n')
			mu.Lock()
			if line != "" && prefix {
				fmt.Fprintf(s.env.Out, "[pod/%s/%s] ", p.Name, cmp.Or(container, p.Spec.Containers[0].Name))
			}
			_, werr := io.WriteString(s.env.Out, line)
			mu.Unlock()
			switch {
			case errors.Is(err, io.EOF), ctx.Err() != nil:
				return nil
			case err != nil || werr != nil:
				return errors.Join(err, werr)
			}
		}
	}
	var failed []error
	var wg sync.WaitGroup
	for _, p := range pods {
		containers := []string{o.Container}
		if all {
			containers = containersOf(p)
		}
		for _, c := range containers {
			if !o.Follow {
				failed = append(failed, one(p, c))
				continue
			}
			wg.Go(func() {
				if err := one(p, c); err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return errors.Join(failed...)
}

// podsFor finds the pods that POD, KIND/NAME or a selector means, running ones first.
func (s *scope) podsFor(ctx context.Context, args []string, selector string) ([]*corev1.Pod, error) {
	podKind, _ := kinds.Find("pods")
	api := s.client()
	switch {
	case selector == "" && len(args) == 0:
		return nil, errors.New("name a pod, KIND/NAME, or give -l SELECTOR")
	case selector == "":
		ts, err := targets(args[:1])
		if err != nil || ts[0].name == "" {
			ts = []target{{podKind, args[0]}}
		}
		o, err := api.Get(ctx, ts[0].kind, s.namespace, ts[0].name)
		if err != nil {
			return nil, hinted(ctx, api, err, ts[0].kind, s.namespace, ts[0].name)
		}
		if p, ok := o.(*corev1.Pod); ok {
			return []*corev1.Pod{p}, nil
		}
		if selector, err = selectorOf(o); err != nil {
			return nil, err
		}
	}
	objects, err := api.List(ctx, podKind, s.namespace, selector)
	if err != nil {
		return nil, err
	}
	var running, other []*corev1.Pod
	for _, o := range objects {
		p, ok := o.(*corev1.Pod)
		switch {
		case !ok:
		case p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil:
			running = append(running, p)
		default:
			other = append(other, p)
		}
	}
	all := append(running, other...)
	if len(all) == 0 {
		return nil, fmt.Errorf("no pods with labels %s in namespace %s", selector, s.namespace)
	}
	return all, nil
}

// selectorOf is the label selector of a workload's or service's pods.
func selectorOf(o kinds.Object) (string, error) {
	switch w := o.(type) {
	case *appsv1.Deployment:
		return metav1.FormatLabelSelector(w.Spec.Selector), nil
	case *appsv1.DaemonSet:
		return metav1.FormatLabelSelector(w.Spec.Selector), nil
	case *appsv1.ReplicaSet:
		return metav1.FormatLabelSelector(w.Spec.Selector), nil
	case *appsv1.StatefulSet:
		return metav1.FormatLabelSelector(w.Spec.Selector), nil
	case *corev1.Service:
		return metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: w.Spec.Selector}), nil
	}
	return "", fmt.Errorf("%s has no pods", o.GetName())
}
