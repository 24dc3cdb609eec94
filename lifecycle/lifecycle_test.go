package lifecycle

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestFirstErrorEndsTheGroup(t *testing.T) {
	g := NewGroup(t.Context())
	boom := errors.New("boom")
	g.Go("waits", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	g.Go("fails", func(context.Context) error { return boom })
	if err := g.Wait(); !errors.Is(err, boom) || err.Error() != "fails: boom" {
		t.Fatalf("Wait() = %v, want fails: boom", err)
	}
}

func TestCancelledGroupIsNoError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := NewGroup(ctx)
	g.Go("waits", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatalf("Wait() = %v, want nil", err)
	}
}

func TestReadinessListsWhatIsPending(t *testing.T) {
	var r Readiness
	a, b, b2 := r.Add("a"), r.Add("b"), r.Add("b")
	a()
	a()
	b()
	if got := r.Pending(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("Pending() = %v, want [b]", got)
	}
	b2()
	if got := r.Pending(); len(got) != 0 {
		t.Errorf("Pending() = %v, want none", got)
	}
}
