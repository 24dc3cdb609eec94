package memory

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMemoryIsGivenBackOnceAfterWork(t *testing.T) {
	const mib = 1 << 20
	k := keeper{busy: true}
	allocated := uint64(0)
	for i, step := range []struct {
		name            string
		allocated, free uint64 // since the step before; now
		want            bool
	}{
		{"starting", 20 * mib, 2 * mib, false},
		{"still some work", 2 * mib, 2 * mib, false},
		{"calm after the start", 0, 2 * mib, true},
		{"nothing to give", 0, 0, false},
		{"nothing to give", mib / 2, mib, false},
		{"a little work", 3 * mib, mib, false},
		{"calm after it", 0, mib, false},
		{"a burst", 100 * mib, 30 * mib, false},
		{"calm after the burst", 0, 0, true},
		{"nothing to give", 0, 0, false},
		{"much is free without a burst", 0, 5 * mib, true},
	} {
		allocated += step.allocated
		if got := k.calm(reading{allocated: allocated, free: step.free}); got != step.want {
			t.Errorf("step %d, %s: %v, want %v", i, step.name, got, step.want)
		}
	}
}

// TestKeep: what a burst took is no longer resident soon after it.
func TestKeep(t *testing.T) {
	if watched {
		t.Skip("the race detector keeps memory of its own")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Keep(ctx, 50, func(err error) { t.Error(err) }) }()
	before := anonymous(t)
	use(64 << 20)
	for deadline := time.Now().Add(4 * Every); anonymous(t) > before+(16<<20); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are resident, %d were before", anonymous(t), before)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWorkHasRoom(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 400}, {4 * mib, 400}, {16 * mib, 100}, {32 * mib, 50}, {1024 * mib, 50}} {
		if got := paceFor(c.live, 50); got != c.want {
			t.Errorf("%d MiB live: %d %%, want %d %%", c.live/mib, got, c.want)
		}
	}
}

//go:noinline
func use(n int) {
	b := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
}

func anonymous(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if w := strings.Fields(line); len(w) == 3 && w[0] == "RssAnon:" {
			n, err := strconv.Atoi(w[1])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Skip("the kernel does not tell what is resident")
	return 0
}
