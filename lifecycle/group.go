// Package lifecycle runs the parts of a daemon together and tells whether it is ready.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Group runs functions until the first of them fails or its context ends, and waits for all.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// NewGroup makes a group whose functions see a context that ends with ctx or with the first failure.
func NewGroup(ctx context.Context) *Group {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{ctx: ctx, cancel: cancel}
}

// Go starts f. Its error ends the group; a nil return only ends f. A cancelled context is no error.
func (g *Group) Go(name string, f func(context.Context) error) {
	g.wg.Go(func() {
		if err := f(g.ctx); err != nil && !(errors.Is(err, context.Canceled) && g.ctx.Err() != nil) {
			g.cancel(fmt.Errorf("%s: %w", name, err))
		}
	})
}

// Wait blocks until every function has returned and gives the first error.
func (g *Group) Wait() error {
	g.wg.Wait()
	err := context.Cause(g.ctx)
	g.cancel(nil)
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
