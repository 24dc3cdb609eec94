package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Report tells of an installation while it goes on. Calls come from one goroutine.
type Report interface {
	// Waiting says how far a component is.
	Waiting(component string, ready, want int, on string)
	// Done says that a component is there.
	Done(s Step)
	// Note says something by the way.
	Note(text string)
}

// Installer applies plans.
type Installer struct {
	Cluster *Cluster
	Report  Report
	// Within is how long each component may take to be ready. Default 5m.
	Within time.Duration
	// Every is how often what is waited for is looked at. Default 500ms.
	Every time.Duration
}

// Result is what an installation did.
type Result struct {
	Changed, Pruned []string
	// Left are definitions of others, which stay as they are.
	Left []string
}

// Install applies a plan, waits for each component, then removes what an earlier installation has left.
func (i *Installer) Install(ctx context.Context, p *Plan) (Result, error) {
	var r Result
	there, err := i.there(ctx, p)
	if err != nil {
		return r, err
	}
	for _, step := range p.Steps {
		for _, o := range step.Objects {
			before := there[describe(o)]
			if k, _, _ := kindOf(o); stays(k, before) {
				if o.GetKind() == "CustomResourceDefinition" {
					r.Left = append(r.Left, o.GetName())
				}
				continue
			}
			changed, err := i.apply(ctx, o, before)
			if err != nil {
				return r, fmt.Errorf("%s: %w", step.Name, err)
			}
			if changed {
				r.Changed = append(r.Changed, describe(o))
			}
		}
		if err := i.wait(ctx, step); err != nil {
			return r, err
		}
		i.Report.Done(step)
	}
	pruned, err := i.prune(ctx, p)
	r.Pruned = pruned
	return r, err
}

// there is what a plan's objects are now, by their description. It is an error if one is not ours to change.
func (i *Installer) there(ctx context.Context, p *Plan) (map[string]*Object, error) {
	all := map[string]*Object{}
	var errs []error
	for _, o := range p.Objects() {
		k, _, ok := kindOf(o)
		if !ok {
			return nil, fmt.Errorf("%s: the chart makes an object of a kind (%s) that this installer does not apply; apply it with kubectl", describe(o), o.GetAPIVersion())
		}
		before, err := i.Cluster.get(ctx, k, o.GetNamespace(), o.GetName())
		switch {
		case err != nil:
			return nil, forbidden(err)
		case before == nil:
			continue
		case k.name == "Namespace" && before.GetDeletionTimestamp() != nil:
			errs = append(errs, fmt.Errorf("namespace %s is being deleted: wait until it is gone (kubectl wait --for=delete namespace/%[1]s), then install again", before.GetName()))
		case !stays(k, before) && before.GetDeletionTimestamp() == nil:
			errs = append(errs, foreign(before))
		}
		all[describe(o)] = before
	}
	return all, errors.Join(errs...)
}

// apply says whether the object was not so before.
func (i *Installer) apply(ctx context.Context, o, before *Object) (bool, error) {
	k, _, _ := kindOf(o)
	o = grown(o, before)
	after, err := i.Cluster.of(k, o.GetNamespace()).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: manager, Force: true})
	if err != nil {
		return false, forbidden(fmt.Errorf("apply %s: %w", describe(o), err))
	}
	return before == nil || !same(before, after), nil // its version changes with its status too, which is not ours
}

func forbidden(err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w: to install, use an account that may create cluster roles and everything else (such as cluster-admin); `ambit x precheck` lists what is missing", err)
	}
	return err
}

// prune removes what carries our label and revision and is not of the plan.
func (i *Installer) prune(ctx context.Context, p *Plan) ([]string, error) {
	stale, err := i.stale(ctx, p)
	if err != nil {
		return nil, err
	}
	var done []string
	for _, o := range stale {
		if err := i.remove(ctx, &o); err != nil {
			return done, err
		}
		done = append(done, describe(&o))
	}
	return done, nil
}

// Stale lists what an earlier installation of this revision left that the plan does not have.
func (i *Installer) Stale(ctx context.Context, p *Plan) ([]string, error) {
	all, err := i.stale(ctx, p)
	var names []string
	for _, o := range all {
		names = append(names, describe(&o))
	}
	return names, err
}

func (i *Installer) stale(ctx context.Context, p *Plan) ([]Object, error) {
	keep := map[string]bool{}
	for _, o := range p.Objects() {
		keep[describe(o)] = true
	}
	all, err := i.owned(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(o Object) bool {
		return keep[describe(&o)] || o.GetKind() == "Namespace" || o.GetKind() == "CustomResourceDefinition"
	}), nil
}

// owned lists what is ours, in the order in which it can be removed.
func (i *Installer) owned(ctx context.Context) ([]Object, error) {
	var all []Object
	for _, k := range slices.Backward(installable()) {
		items, err := i.Cluster.list(ctx, k, "", labelManaged+"="+manager)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
	}
	return all, nil
}

func (i *Installer) remove(ctx context.Context, o *Object) error {
	k, _, ok := kindOf(o)
	if !ok {
		return fmt.Errorf("%s: not a kind that we install", describe(o))
	}
	return i.removeKind(ctx, k, o)
}

func (i *Installer) removeKind(ctx context.Context, k kind, o *Object) error {
	background := metav1.DeletePropagationBackground
	uid := o.GetUID()
	err := i.Cluster.of(k, o.GetNamespace()).Delete(ctx, o.GetName(), metav1.DeleteOptions{
		PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err != nil && !apierrors.IsNotFound(err) && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("delete %s: %w", describe(o), err)
	}
	return ctx.Err()
}
