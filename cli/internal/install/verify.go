package install

import (
	"context"
	"errors"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Verify looks whether every object of a plan is there and ready.
func (i *Installer) Verify(ctx context.Context, p *Plan) error {
	var errs []error
	for _, o := range p.Objects() {
		k, _, _ := kindOf(o)
		now, err := i.Cluster.get(ctx, k, o.GetNamespace(), o.GetName())
		switch {
		case err != nil:
			errs = append(errs, err)
		case now == nil:
			errs = append(errs, fmt.Errorf("%s is missing: install again", describe(o)))
		case !judge(now).ready:
			errs = append(errs, fmt.Errorf("%s is not ready", describe(o)))
		}
	}
	return errors.Join(errs...)
}

// Changes lists what applying a plan would change, as the API server says.
func (i *Installer) Changes(ctx context.Context, p *Plan) ([]string, error) {
	there, err := i.there(ctx, p)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, o := range p.Objects() {
		k, _, _ := kindOf(o)
		before := there[describe(o)]
		switch {
		case before == nil:
			all = append(all, "creates "+describe(o))
			continue
		case stays(k, before):
			continue
		}
		o = grown(o, before)
		after, err := i.Cluster.of(k, o.GetNamespace()).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: manager, Force: true, DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return nil, forbidden(fmt.Errorf("try %s: %w", describe(o), err))
		}
		if !same(before, after) {
			all = append(all, "changes "+describe(o))
		}
	}
	return all, nil
}

// same compares two states of an object, without what the API server writes about it.
func same(a, b *Object) bool {
	strip := func(o *Object) map[string]any {
		c := o.DeepCopy()
		c.SetManagedFields(nil)
		c.SetResourceVersion("")
		c.SetGeneration(0)
		m := maps.Clone(c.Object)
		delete(m, "status")
		return m
	}
	return fmt.Sprint(strip(a)) == fmt.Sprint(strip(b)) // maps are printed in order
}
