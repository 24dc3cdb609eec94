package netnstest

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// NothingLeft fails the test if goroutines or descriptors are left when all is cleaned up that is registered after it.
func NothingLeft(t testing.TB) {
	t.Helper()
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close() // the runtime has its own descriptors from the first socket on
	}
	before := descriptors(t)
	t.Cleanup(func() {
		goleak.VerifyNone(t)
		// Pipes through which the net package has spliced are closed by the collector.
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			runtime.GC()
			after := descriptors(t)
			if after <= before {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%d descriptors are open, before the test there were %d", after, before)
				return
			}
		}
	})
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
