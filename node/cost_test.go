//go:build !race

package node_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/mesh"
)

// cpu is what this process has used.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A namespace that joins the mesh costs little for each of its pods: processor time, which others on the machine do not change
// much, of the agent together with this test's API server and proxy. It was 7 ms before one visit, one transaction and one
// connection did for a pod, and is 2 ms.
func TestEnrolmentIsCheap(t *testing.T) {
	const count, limit = 100, 5 * time.Millisecond
	w := newWorld(t)
	w.conf.RepairEvery = time.Hour // not what this is about
	w.namespace("default", false)
	var pods []*testPod
	for i := range count {
		p := w.pod(fmt.Sprintf("p%d", i), fmt.Sprintf("u%d", i), fmt.Sprintf("10.0.0.%d", i+1))
		w.api.Put(p.running())
		pods = append(pods, p)
	}
	w.start()
	w.proxy(fakeztunnel.Yes).Expect(t, "snapshot")
	before, start := cpu(t), time.Now()
	w.namespace("default", true)
	for _, p := range pods {
		p.annotated(mesh.RedirectionEnabled)
	}
	each := (cpu(t) - before) / count
	t.Logf("%v of processor time for a pod, %v for all %d", each, time.Since(start), count)
	if each > limit {
		t.Errorf("%v of processor time to enrol a pod, want at most %v", each, limit)
	}
	for _, p := range pods {
		if !p.captured() {
			t.Errorf("%s says that it is captured and is not", p.Metadata.Name)
		}
	}
}
