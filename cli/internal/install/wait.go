package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// wait returns when every object of a step does what it is for, or says why one does not.
func (i *Installer) wait(ctx context.Context, step Step) error {
	var late *Object
	look := func() (done bool, err error) {
		late = nil
		for _, o := range step.Objects {
			s, err := i.state(ctx, o)
			switch {
			case err == nil:
			case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), ctx.Err() != nil:
				return false, fmt.Errorf("%s: %w", step.Name, err)
			default: // the API server may be on its way back, as on a cluster that is being made
				s = state{why: ": " + err.Error()}
			}
			if !s.ready {
				late = o
				i.Report.Waiting(step.Name, s.have, s.want, describe(o)+s.why)
				return false, nil
			}
		}
		return true, nil
	}
	switch err := i.poll(ctx, look); {
	case errors.Is(err, errLate):
		return i.notReady(context.WithoutCancel(ctx), step, late, i.within())
	case err != nil && late != nil: // ctx has ended
		return fmt.Errorf("%s: waiting for %s: %w", step.Name, describe(late), err)
	default:
		return err
	}
}

// within is how long a component may take.
func (i *Installer) within() time.Duration { return cmp.Or(i.Within, 5*time.Minute) }

// errLate is that what was looked for did not come in time.
var errLate = errors.New("it takes too long")

// poll looks again and again until look is done or fails, ctx ends, or a component has had its time.
func (i *Installer) poll(ctx context.Context, look func() (done bool, err error)) error {
	end := time.Now().Add(i.within())
	tick := time.NewTicker(cmp.Or(i.Every, 500*time.Millisecond))
	defer tick.Stop()
	for {
		if done, err := look(); done || err != nil {
			return err
		}
		if time.Now().After(end) {
			return errLate
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// state is how far an object is.
type state struct {
	ready      bool
	have, want int
	why        string
}

func (i *Installer) state(ctx context.Context, o *Object) (state, error) {
	switch o.GetKind() {
	case "Deployment", "DaemonSet", "CustomResourceDefinition":
	default:
		return state{ready: true}, nil
	}
	k, _, _ := kindOf(o)
	now, err := i.Cluster.get(ctx, k, o.GetNamespace(), o.GetName())
	if err != nil {
		return state{}, err
	}
	if now == nil {
		return state{why: ": somebody has deleted it"}, nil
	}
	return judge(now), nil
}

// judge says how far an object is by its own status.
func judge(o *Object) state {
	number := func(path ...string) int {
		n, _, _ := unstructured.NestedInt64(o.Object, path...)
		return int(n)
	}
	seen := int64(number("status", "observedGeneration")) >= o.GetGeneration()
	switch o.GetKind() {
	case "CustomResourceDefinition":
		list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
		for _, e := range list {
			c, _ := e.(map[string]any)
			if c["type"] == "Established" && c["status"] == "True" {
				return state{ready: true}
			}
		}
		return state{want: 1}
	case "Deployment":
		want := 1
		if n, ok, _ := unstructured.NestedInt64(o.Object, "spec", "replicas"); ok {
			want = int(n)
		}
		have := min(number("status", "updatedReplicas"), number("status", "availableReplicas"))
		return state{ready: seen && have >= want && number("status", "replicas") <= want, have: have, want: want}
	case "DaemonSet":
		want := number("status", "desiredNumberScheduled")
		have := min(number("status", "updatedNumberScheduled"), number("status", "numberAvailable"))
		return state{ready: seen && have >= want, have: have, want: want}
	}
	return state{ready: true}
}
