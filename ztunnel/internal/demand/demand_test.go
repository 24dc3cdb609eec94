package demand

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plane notes what is subscribed to.
type plane struct{ names []string }

func (p *plane) Subscribe(names ...string) { p.names = append(p.names, names...) }
func (p *plane) Unsubscribe(names ...string) {
	p.names = slices.DeleteFunc(p.names, func(n string) bool { return slices.Contains(names, n) })
}

func TestAskWaitsForTheAnswerOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plane{}
		a := New(p, 5*time.Second, 10)
		began, done := time.Now(), make(chan error)
		for range 3 { // who asks the same shares the answer
			go func() { done <- a.Ask(t.Context(), "n/10.0.0.1", "ns/host") }()
		}
		time.Sleep(time.Second)
		a.Answered("ns/host", "something/else")
		synctest.Wait()
		a.Answered("n/10.0.0.1")
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != time.Second || !slices.Equal(p.names, []string{"n/10.0.0.1", "ns/host"}) {
			t.Errorf("took %s and subscribed to %q", took, p.names)
		}
		if err := a.Ask(t.Context(), "ns/host"); err != nil || len(p.names) != 2 || time.Since(began) != time.Second {
			t.Errorf("asked again for what was answered: %v, %q", err, p.names)
		}
	})
}

func TestAskIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(&plane{}, 5*time.Second, 10)
		began := time.Now()
		if err := a.Ask(t.Context(), "a/b"); err == nil || !strings.Contains(err.Error(), "has not told within 5s what a/b is") || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("gone"))
		if err := a.Ask(ctx, "a/b"); err == nil || !strings.HasSuffix(err.Error(), "gone") {
			t.Errorf("%v, want the context's cause", err)
		}
	})
}

// prompt is a plane that answers at once.
type prompt struct {
	plane
	a *Asker
}

func (p *prompt) Subscribe(names ...string) {
	p.plane.Subscribe(names...)
	go p.a.Answered(names...)
}

func TestNamesAreBounded(t *testing.T) {
	p := &prompt{}
	a := New(p, 10*time.Second, 100)
	p.a = a
	a.Keep("kept")
	for i := range 10_000 {
		if err := a.Ask(t.Context(), fmt.Sprint("n/", i), "hot"); err != nil {
			t.Fatal(err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(p.names) > 101 || len(a.names) != len(p.names) || !slices.Contains(p.names, "kept") || !slices.Contains(p.names, "hot") {
		t.Errorf("%d names, %d subscribed to: %q", len(a.names), len(p.names), p.names)
	}
}
