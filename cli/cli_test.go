package cli

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestInterruptsAreQuietAndFailuresAreNot(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	signal := errors.New("interrupt signal received")
	if interrupted(ctx, context.Canceled) {
		t.Error("nothing was interrupted yet")
	}
	cancel(signal)
	for _, err := range []error{context.Canceled, signal, fmt.Errorf("get the log: %w", signal), errors.Join(signal, nil)} {
		if !interrupted(ctx, err) {
			t.Errorf("%v is told though the person ended it", err)
		}
	}
	for _, err := range []error{errors.New("no such pod"), errors.Join(signal, errors.New("a bridge is left"))} {
		if interrupted(ctx, err) {
			t.Errorf("%v is hidden", err)
		}
	}
}
