package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is a reader of a log that reads nothing until it is let.
type stuck struct {
	open chan struct{}
	mu   sync.Mutex // guards b
	b    bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.open
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// Connections end on time though nobody reads the log; what is lost is counted, what is kept is whole and in order.
func TestAStuckLogHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuck{open: make(chan struct{})}
		q := NewQueue(w)
		var lost uint64
		q.Lost = func(n uint64) { lost += n }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		began := time.Now()
		const lines = 3 * queuedLines
		for i := range lines {
			if i == queuedLines {
				synctest.Wait() // Run has taken what it takes, and is stuck
			}
			if _, err := fmt.Fprintf(q, "line %d\n", i); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the writers waited %s", took)
		}
		close(w.open)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		fmt.Fprint(q, "after the end\n")
		got := strings.Split(strings.TrimSuffix(w.b.String(), "\n"), "\n")
		if got[len(got)-1] != "after the end" {
			t.Errorf("last line %q", got[len(got)-1])
		}
		last := -1
		for _, l := range got[:len(got)-1] {
			var n int
			if _, err := fmt.Sscanf(l, "line %d", &n); err != nil || n <= last {
				t.Fatalf("%q after line %d", l, last)
			}
			last = n
		}
		if kept := uint64(len(got) - 1); lost == 0 || kept+lost != lines || kept < queuedLines {
			t.Errorf("%d lines kept and %d counted as lost, of %d", kept, lost, lines)
		}
	})
}

func BenchmarkQueue(b *testing.B) {
	q := NewQueue(discard{})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- q.Run(ctx) }()
	line := bytes.Repeat([]byte("x"), 600)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = q.Write(line)
	}
	cancel()
	<-done
}
