package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// pollEvery is how often a waiting call looks again: the API server is a socket away.
const pollEvery = 100 * time.Millisecond

// Until looks at an object until ok says so or ctx ends. ok gets nil while there is no such object; what it says
// besides is the reason in the error.
func (c *Client) Until(ctx context.Context, k kinds.Kind, namespace, name string, ok func(kinds.Object) (bool, string)) error {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	why := ""
	for {
		o, err := c.Get(ctx, k, namespace, name)
		switch {
		case NotFound(err):
			o = nil
		case ctx.Err() != nil:
			return timedOut(ctx, k, name, why)
		case err != nil:
			return err
		}
		var done bool
		if done, why = ok(o); done {
			return nil
		}
		select {
		case <-ctx.Done():
			return timedOut(ctx, k, name, why)
		case <-t.C:
		}
	}
}

// timedOut says what was waited for in vain, and what was missing last.
func timedOut(ctx context.Context, k kinds.Kind, name, why string) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	return fmt.Errorf("timed out waiting for the condition on %s/%s: %s", k.Plural, name, why)
}

// RolledOut tells whether everything that a workload asks for is there, up to date and ready, in kubectl's words.
func RolledOut(o kinds.Object) (bool, string) {
	switch w := o.(type) {
	case *appsv1.Deployment:
		want := int32(1)
		if w.Spec.Replicas != nil {
			want = *w.Spec.Replicas
		}
		s := w.Status
		switch {
		case s.ObservedGeneration < w.Generation:
			return false, "deployment spec update not yet observed"
		case s.UpdatedReplicas < want:
			return false, fmt.Sprintf("%d out of %d new replicas have been updated", s.UpdatedReplicas, want)
		case s.Replicas > s.UpdatedReplicas:
			return false, fmt.Sprintf("%d old replicas are pending termination", s.Replicas-s.UpdatedReplicas)
		case s.AvailableReplicas < want:
			return false, fmt.Sprintf("%d of %d updated replicas are available", s.AvailableReplicas, want)
		}
		return true, ""
	case *appsv1.DaemonSet:
		s := w.Status
		switch {
		case s.ObservedGeneration < w.Generation || s.DesiredNumberScheduled == 0:
			return false, "daemon set spec update not yet observed"
		case s.UpdatedNumberScheduled < s.DesiredNumberScheduled:
			return false, fmt.Sprintf("%d out of %d new pods have been updated", s.UpdatedNumberScheduled, s.DesiredNumberScheduled)
		case s.NumberReady < s.DesiredNumberScheduled:
			return false, fmt.Sprintf("%d of %d updated pods are available", s.NumberReady, s.DesiredNumberScheduled)
		}
		return true, ""
	case *corev1.Pod:
		for _, c := range w.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return true, ""
			}
		}
		return false, "pod is not ready"
	case nil:
		return false, "there is no such object yet"
	}
	return false, "it is nothing that is rolled out"
}
