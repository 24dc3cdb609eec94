// Package leak finds goroutines that tests leave behind.
package leak

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long goroutines that are on their way out may take.
const patience = 5 * time.Second

// Main runs a package's tests and fails if goroutines that they started live on.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for those who have more to do; it gives the exit status.
func Run(m *testing.M) int {
	status := m.Run()
	if status != 0 {
		return status
	}
	var left []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if left = stacks(); len(left) == 0 {
			return 0
		}
	}
	fmt.Fprintf(os.Stderr, "%d goroutines outlive their tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
	return 1
}

// harmless are parts of the stacks of goroutines that the runtime and the standard library keep for good.
func harmless() []string {
	return []string{"testing.(*M).", "os/signal.signal_recv", "os/signal.loop", "runtime.goexit0", "created by os/signal.Notify", "runtime/pprof."}
}

// stacks are those of every goroutine but this one and the harmless.
func stacks() []string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := strings.Split(strings.TrimSpace(string(buf)), "\n\n")
	return slices.DeleteFunc(all[1:], func(s string) bool {
		return slices.ContainsFunc(harmless(), func(h string) bool { return strings.Contains(s, h) })
	})
}
