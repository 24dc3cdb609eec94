package node_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/internal/testkit/plugin"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/capture"
)

// CN-02: the plugin is killed at 20 moments of ADD; the next try gives the full state and the pod's end a clean one.
func TestKilledPluginLeavesNoHalfState(t *testing.T) {
	w := newWorld(t)
	program := filepath.Join(filepath.Dir(w.conf.NetnsDir), "real-cni")
	plugin.Build(t, program)
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, "snapshot")
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.Object)
	add := func() *exec.Cmd {
		cmd := exec.Command(program)
		cmd.Env = []string{
			"CNI_COMMAND=ADD", "CNI_CONTAINERID=c", "CNI_IFNAME=eth0", "CNI_PATH=/", "CNI_NETNS=" + filepath.Join(w.conf.NetnsDir, "u1"),
			"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u1",
		}
		cmd.Stdin = bytes.NewReader(fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"net","type":"istio-cni","cni_agent_run_dir":%q,"ambient_enabled":true,
			"prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/24"}],"dns":{}}}`, filepath.Dir(w.conf.NetnsDir)))
		return cmd
	}
	for i := range 20 {
		cmd := add()
		must(t, cmd.Start())
		time.Sleep(time.Duration(i) * 500 * time.Microsecond) // the moment is the case
		_ = cmd.Process.Kill()                                // it may have ended
		_ = cmd.Wait()
	}
	if out, err := add().CombinedOutput(); err != nil {
		t.Fatalf("CN-02: ADD after kills: %v\n%s", err, out)
	}
	z.Expect(t, p.added()) // once: it was the same namespace each time
	z.Quiet(t)
	if p.tables() != everything || !p.probed() || p.annotation() != mesh.RedirectionEnabled {
		t.Errorf("CN-02: rules %q, probes exempt %v, annotation %q", p.tables(), p.probed(), p.annotation())
	}
	w.api.Delete(p.Object)
	z.Expect(t, "del u1")
	wait(t, "end of the exemption", func() bool { return !p.probed() })
}

// CN-09.
func TestNothingStaysOfManyPods(t *testing.T) {
	w := newWorld(t)
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, "snapshot")
	p := w.pod("web", "u0", "10.0.0.1")
	goroutines, fds := 0, 0
	count := func() (int, int) {
		all, err := filepath.Glob("/proc/self/fd/*")
		must(t, err)
		return runtime.NumGoroutine(), len(all)
	}
	rounds := 100
	if os.Getenv("FAULTS") == "long" {
		rounds = 10_000
	}
	for i := range rounds {
		p.Metadata.UID = fmt.Sprint("u", i)
		if i > 0 {
			p.mount(p.Metadata.UID)
		}
		w.api.Put(p.Object)
		if status, text := p.event(); status != http.StatusOK {
			t.Fatalf("event: %d %s", status, text)
		}
		w.api.Delete(p.Object)
		z.Expect(t, p.added(), "del "+p.Metadata.UID)
		wait(t, "end of the exemption", func() bool { return !p.probed() })
		if i == 10 { // connections to the API are open by now
			goroutines, fds = count()
		}
	}
	for _, set := range []string{capture.ProbesV4, capture.ProbesV6} {
		if all, err := nft.Addrs(nil, capture.Source{}.Host(nil), set); err != nil || len(all) > 0 {
			t.Errorf("CN-09: %s holds %v, %v", set, all, err)
		}
	}
	if names, err := nft.Names(nil); err != nil || len(names) != 2 {
		t.Errorf("CN-09: tables of the node: %v, %v", names, err)
	}
	const connections = 16 // of the API's client and server, at most, with their goroutines; a leak would be one for each pod
	wait(t, fmt.Sprintf("CN-09: goroutines and descriptors as before, %d and %d", goroutines, fds), func() bool {
		g, f := count()
		return g <= goroutines+connections && f <= fds+connections
	})
}
