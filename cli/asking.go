package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
)

const (
	// askedAtOnce is how many pods are asked side by side.
	askedAtOnce = 16
	// whyTime bounds the search for why a pod does not answer.
	whyTime = 3 * time.Second
)

// answer is what a pod said, or why it said nothing.
type answer[T any] struct {
	pod   *corev1.Pod
	value T
	err   error
}

// askEach asks pods side by side and gives their answers in the order of the pods: one that does not answer keeps nobody
// waiting for longer than itself.
func askEach[T any](pods []*corev1.Pod, ask func(*corev1.Pod) (T, error)) []answer[T] {
	all := make([]answer[T], len(pods))
	room := make(chan struct{}, askedAtOnce)
	var asked sync.WaitGroup
	for i, p := range pods {
		room <- struct{}{}
		asked.Go(func() {
			defer func() { <-room }()
			v, err := ask(p)
			all[i] = answer[T]{p, v, err}
		})
	}
	asked.Wait()
	return all
}

// failures are the errors among answers. That a right is missing is told once.
func failures[T any](all []answer[T]) error {
	var failed []error
	forbidden := false
	for _, a := range all {
		if isForbidden(a.err) {
			if forbidden {
				continue
			}
			forbidden = true
		}
		if a.err != nil {
			failed = append(failed, a.err)
		}
	}
	return errors.Join(failed...)
}

func isForbidden(err error) bool {
	var refused *client.StatusError
	return errors.As(err, &refused) && refused.Code == http.StatusForbidden
}

// page reads a page of a debug server of a pod of the mesh.
func (l *look) page(ctx context.Context, p *corev1.Pod, port int, path string) ([]byte, error) {
	return l.call(ctx, http.MethodGet, p, port, path)
}

// call makes a request to a debug server of a pod of the mesh. Where that does not answer, the error says what is wrong with
// the pod or its node.
func (l *look) call(ctx context.Context, method string, p *corev1.Pod, port int, path string) ([]byte, error) {
	b, err := l.mesh().Pod(ctx, method, p.Namespace, p.Name, port, path)
	var answered *client.StatusError
	switch {
	case err == nil:
		return b, nil
	case errors.As(err, &answered) && answered.Reason == "" && answered.Code == http.StatusNotFound && l.at.state == "":
		page, _, _ := strings.Cut(path, "?")
		return nil, fmt.Errorf("%s has no page %s: it is of another version than this command, or not ambit's; see `ambit version`", p.Name, page)
	case errors.As(err, &answered):
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	case ctx.Err() != nil:
		return nil, err
	}
	if why := l.trouble(ctx, p); why != "" {
		return nil, fmt.Errorf("%s on %s does not answer: %s (%w)", p.Name, cmp.Or(p.Spec.NodeName, "no node"), why, err)
	}
	return nil, fmt.Errorf("%s on %s does not answer: %w", p.Name, cmp.Or(p.Spec.NodeName, "no node"), err)
}

// trouble finds out what is wrong with a pod that does not answer; "" if nothing is to be seen.
func (l *look) trouble(ctx context.Context, p *corev1.Pod) string {
	ctx, cancel := context.WithTimeout(ctx, whyTime)
	defer cancel()
	o, err := l.mesh().Get(ctx, kindNamed("pods"), p.Namespace, p.Name)
	if client.NotFound(err) {
		return "it is gone; try again"
	}
	if now, ok := o.(*corev1.Pod); ok && err == nil {
		p = now
	}
	var node *corev1.Node
	if o, err := l.mesh().Get(ctx, kindNamed("nodes"), "", p.Spec.NodeName); err == nil {
		node, _ = o.(*corev1.Node)
	}
	return troubleOf(p, node, time.Now(), l.see)
}

// troubleOf says what is wrong with a pod, its node first: with that away nothing else that is said of the pod is new.
func troubleOf(p *corev1.Pod, n *corev1.Node, now time.Time, see func(...string) string) string {
	if n != nil {
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
				return fmt.Sprintf("node %s has not been ready for %s: %s", n.Name, table.Age(c.LastTransitionTime.Time, now), cmp.Or(c.Message, c.Reason, "nobody says why"))
			}
		}
	}
	if p.Spec.NodeName == "" {
		return "it is on no node yet: see " + see("describe pod -n", p.Namespace, p.Name)
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if c.State.Terminated != nil && c.State.Terminated.ExitCode == 0 {
			continue // an init container has done its work
		}
		ended := c.LastTerminationState.Terminated
		switch {
		case c.State.Waiting != nil:
			why := fmt.Sprintf("its container %s waits: %s", c.Name, c.State.Waiting.Reason)
			if ended == nil {
				return why + "; see " + see("describe pod -n", p.Namespace, p.Name)
			}
			return fmt.Sprintf("%s; it ended with exit code %d (%s) %s ago, restarted %d times: see %s", why, ended.ExitCode, ended.Reason,
				table.Age(ended.FinishedAt.Time, now), c.RestartCount, see("logs -n", p.Namespace, p.Name, "--previous"))
		case c.State.Terminated != nil:
			return fmt.Sprintf("its container %s has ended with exit code %d (%s): see %s", c.Name, c.State.Terminated.ExitCode, c.State.Terminated.Reason, see("logs -n", p.Namespace, p.Name))
		}
	}
	switch {
	case p.DeletionTimestamp != nil:
		return "it is being deleted"
	case !ready(p):
		return "it runs and is not ready: see " + see("logs -n", p.Namespace, p.Name)
	}
	return ""
}
