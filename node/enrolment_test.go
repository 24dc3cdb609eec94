package node_test

import (
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
)

const everything = "inet istio-ambient-nat inet istio-ambient-mangle inet istio-ambient-raw rule"

func TestRunningPodJoinsAndLeaves(t *testing.T) {
	w := newWorld(t)
	w.namespace("default", false)
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.running())
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, "snapshot")
	if p.captured() {
		t.Fatal("a pod outside the mesh is captured")
	}
	w.namespace("default", true)
	z.Expect(t, p.added())
	p.annotated(mesh.RedirectionEnabled)
	if got := p.tables(); got != everything || !p.probed() {
		t.Errorf("captured pod holds %q, probes exempt: %v", got, p.probed())
	}

	w.namespace("default", false)
	p.annotated("")
	left := time.Now()
	if !p.captured() {
		t.Error("rules are gone before others can know that the pod has left")
	}
	z.Quiet(t)
	z.Expect(t, "del u1")
	if wait := time.Since(left); wait < w.conf.LeaveAfter/2 {
		t.Errorf("the proxy lost the pod %v after the others were told", wait)
	}
	wait(t, "end of the exemption", func() bool { return !p.probed() })
	if got := p.tables(); got != "" {
		t.Errorf("pod that left holds %q", got)
	}
}

// A pod that starts waits for its rules and its proxy, not for an API server that is slow to hear of it.
func TestNewPodDoesNotWaitForTheAPIServer(t *testing.T) {
	w := newWorld(t)
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.Object)
	var away atomic.Bool
	away.Store(true)
	w.api.Hook(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch || !away.Load() {
			return false
		}
		rw.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, "snapshot")
	wait(t, "the agent's readiness", func() bool { _, text := page(t, w.conf.Health, "/readyz"); return strings.HasPrefix(text, "ready") })
	if status, text := p.event(); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	z.Expect(t, p.added())
	if !p.captured() || p.annotation() != "" {
		t.Errorf("captured %v, annotation %q", p.captured(), p.annotation())
	}
	away.Store(false)
	p.annotated(mesh.RedirectionEnabled)
}

// No connection of a running pod is refused while it joins.
func TestProxyListensBeforeTheRulesAreThere(t *testing.T) {
	w := newWorld(t)
	w.namespace("default", false)
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.running())
	w.start()
	early := make(chan bool, 10)
	z := w.proxy(func(told string) (string, bool) {
		if told == p.added() {
			names, err := nft.Names(p.ns)
			early <- err == nil && len(names) == 0
		}
		return "", true
	})
	z.Expect(t, "snapshot")
	w.namespace("default", true)
	z.Expect(t, p.added())
	p.annotated(mesh.RedirectionEnabled)
	if !<-early {
		t.Error("the rules were there before the proxy")
	}
}

func TestPodThatComesBackWhileItLeavesStays(t *testing.T) {
	w := newWorld(t)
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.running())
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, p.added(), "snapshot")
	p.annotated(mesh.RedirectionEnabled)
	for range 20 { // BP-20
		w.namespace("default", false)
		p.annotated("")
		w.namespace("default", true)
		p.annotated(mesh.RedirectionEnabled)
	}
	time.Sleep(2 * w.conf.LeaveAfter) // nothing must happen in this time
	z.Quiet(t)
	if p.tables() != everything || !p.probed() || p.annotation() != mesh.RedirectionEnabled {
		t.Error("BP-20: the pod is not whole")
	}
}

func TestPodWaitsForTheProxy(t *testing.T) {
	w := newWorld(t)
	w.conf.RepairEvery = time.Hour // not what this is about
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.running())
	w.start()
	p.annotated(mesh.RedirectionPending)
	if !p.captured() || p.probed() {
		t.Errorf("waiting pod: captured %v, probes exempt %v", p.captured(), p.probed())
	}
	var refusals atomic.Int64
	z := w.proxy(func(told string) (string, bool) {
		if strings.HasPrefix(told, "add") && refusals.Add(1) <= 2 {
			return "not yet", true
		}
		return "", true
	})
	start := time.Now()
	z.Expect(t, p.added(), "snapshot", p.added(), p.added())
	p.annotated(mesh.RedirectionEnabled)
	if took := time.Since(start); took > time.Second {
		t.Errorf("a refused pod waited %v", took)
	}
	// The proxy goes: no step back, or others would send plain text meanwhile.
	z.Close()
	asked := len(w.api.Requests())
	changed := p.running()
	changed.Metadata.Labels = map[string]string{"a": "b"}
	changed.Metadata.Annotations = map[string]string{mesh.AnnotationRedirection: mesh.RedirectionEnabled}
	w.api.Put(changed)
	again := w.proxy(fakeztunnel.Yes)
	again.Expect(t, p.added(), "snapshot")
	for _, r := range w.api.Requests()[asked:] {
		if strings.HasPrefix(r, http.MethodPatch) {
			t.Errorf("the pod was annotated anew: %s", r)
		}
	}
}

// CN-14.
func TestRestartedAgentTakesOver(t *testing.T) {
	w := newWorld(t)
	p, other := w.pod("web", "u1", "10.0.0.1"), w.pod("other", "u2", "10.0.0.2")
	w.api.Put(p.running())
	w.api.Put(other.running())
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	p.annotated(mesh.RedirectionEnabled)
	other.annotated(mesh.RedirectionEnabled)
	w.stop()
	<-z.Ended
	if p.tables() != everything || !p.probed() {
		t.Fatal("CN-14: an agent that ends takes the capture with it")
	}
	w.api.Delete(other.running()) // while no agent runs

	// The next agent knows the pods before the namespaces: a proxy must not hear of it meanwhile.
	release := make(chan struct{})
	w.api.Hook(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/api/v1/namespaces" {
			<-release
		}
		return false
	})
	before := len(w.api.Requests())
	w.start()
	wait(t, "list of pods", func() bool {
		return strings.Contains(strings.Join(w.api.Requests()[before:], " "), "/api/v1/pods?allow")
	})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if !p.captured() || !p.probed() || p.annotation() != mesh.RedirectionEnabled {
				t.Error("CN-14: a gap in the capture")
				return
			}
		}
	}()
	<-watched
	close(release)
	again := w.proxy(fakeztunnel.Yes)
	again.Expect(t, p.added(), "snapshot")
	wait(t, "end of the exemption of a pod that ended meanwhile", func() bool { return !other.probed() })
	if p.tables() != everything || !p.probed() || p.annotation() != mesh.RedirectionEnabled {
		t.Error("CN-14: the pod is not whole")
	}
}

func TestRestartedAgentSweepsWhatAnEarlierLeft(t *testing.T) {
	w := newWorld(t)
	w.namespace("default", false)
	p, noted := w.pod("web", "u1", "10.0.0.1"), w.pod("noted", "u2", "10.0.0.2")
	w.api.Put(p.running())
	o := noted.running()
	o.Metadata.Annotations = map[string]string{mesh.AnnotationRedirection: mesh.RedirectionEnabled}
	w.api.Put(o)
	for _, pod := range []*testPod{p, noted} {
		pod.capture()
	}
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, "snapshot")
	for _, pod := range []*testPod{p, noted} {
		wait(t, "end of the rules of "+pod.Metadata.Name, func() bool { return pod.tables() == "" && pod.annotation() == "" })
	}
}

func TestPodReplacedUnderTheSameName(t *testing.T) {
	w := newWorld(t)
	old := w.pod("web-0", "u1", "10.0.0.1")
	w.api.Put(old.running())
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, old.added(), "snapshot")
	old.annotated(mesh.RedirectionEnabled)
	z.Quiet(t)

	// The watch lags: it shows the old pod, which has ended, while the runtime starts the new one.
	w.api.HoldWatches(true)
	ended := old.running()
	ended.Status.Phase = "Failed"
	w.api.Put(ended)
	w.api.Delete(ended)
	fresh := w.pod("web-0", "u2", "10.0.0.2")
	w.api.Put(fresh.Object)
	if status, text := fresh.event(); status != http.StatusOK {
		t.Fatalf("event: %d %s", status, text)
	}
	z.Expect(t, "del u1", fresh.added())
	w.api.HoldWatches(false)
	o := fresh.running()
	o.Metadata.Annotations = map[string]string{mesh.AnnotationRedirection: mesh.RedirectionEnabled}
	w.api.Put(o)
	time.Sleep(3 * w.conf.RepairEvery) // nothing must happen in this time
	z.Quiet(t)
	if fresh.tables() != everything || !fresh.probed() || old.probed() || fresh.annotation() != mesh.RedirectionEnabled {
		t.Error("the new pod is not whole, or the old one left something")
	}
	w.api.Delete(o)
	z.Expect(t, "del u2")
	wait(t, "end of the exemption", func() bool { return !fresh.probed() })
	if !fresh.captured() {
		t.Error("a pod that the API forgot, and that may still run, is not captured any more")
	}
}

// CN-11 and CN-01.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	w.namespace("plain", false)
	w.start()
	p := w.pod("web", "u1", "10.0.0.1")
	if status, text := p.event(); status != http.StatusInternalServerError || !strings.Contains(text, "404") {
		t.Errorf("event for a pod that nobody knows: %d %q", status, text)
	}
	w.api.HoldWatches(true)
	w.api.Put(p.Object)
	if status, text := p.event(); status != http.StatusInternalServerError || !strings.Contains(text, "no ztunnel connection") {
		t.Errorf("event without a proxy: %d %q", status, text)
	}
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, p.added(), "snapshot")
	for range 3 {
		if status, text := p.event(); status != http.StatusOK || text != "" {
			t.Errorf("event: %d %q", status, text)
		}
	}
	z.Quiet(t)
	if p.tables() != everything || !p.probed() {
		t.Error("CN-11: the pod is not whole after its event")
	}
	outside := w.pod("outside", "u3", "10.0.0.3")
	outside.Metadata.Namespace = "plain"
	w.api.Put(outside.Object)
	if status, _ := outside.event(); status != http.StatusOK || outside.captured() {
		t.Errorf("CN-01: a pod outside the mesh: %d, captured %v", status, outside.captured())
	}
	// The runtime tries again with another namespace.
	again := w.pod("web", "u1b", "10.0.0.4")
	again.Metadata.UID = "u1"
	if status, text := w.post([]byte(`{"Netns":"` + filepath.Join(w.conf.NetnsDir, "u1b") + `","PodName":"web","PodNamespace":"default","PodUID":"u1","IPs":[{"Address":{"IP":"10.0.0.4"}}]}`)); status != http.StatusOK {
		t.Errorf("event: %d %q", status, text)
	}
	z.Expect(t, "del u1", again.added())
	if !again.probed() || p.probed() {
		t.Error("exemption did not follow the pod")
	}
	for _, body := range []string{"", "{}", "[]", `{"Netns":"/x","PodName":"a","PodNamespace":"b","IPs":[{"Address":{"IP":"x"}}]}`} {
		if status, _ := w.post([]byte(body)); status != http.StatusBadRequest {
			t.Errorf("event %q: %d", body, status)
		}
	}
	w.api.HoldWatches(false)
	p.annotated(mesh.RedirectionEnabled) // it follows: no pod waits for it
}

// CN-15.
func TestTamperedRulesAreRepaired(t *testing.T) {
	w := newWorld(t)
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.running())
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, p.added(), "snapshot")
	p.annotated(mesh.RedirectionEnabled)
	wait(t, "exemption", p.probed)
	must(t, nft.Delete(p.ns, nft.Table{Family: nft.INet, Name: "istio-ambient-nat"}))
	must(t, link.DeleteRule(p.ns, link.Rule{Mark: mesh.ConnMark, Mask: mesh.MarkMask, Priority: 32764, Table: 100}))
	must(t, nft.Delete(nil, nft.Table{Family: nft.INet, Name: "istio-ambient-host"}))
	wait(t, "CN-15: repair", func() bool {
		return strings.Contains(p.tables(), "istio-ambient-nat") && strings.HasSuffix(p.tables(), "rule") && p.probed()
	})
	z.Quiet(t)
}

func TestStolenAddressMisleadsNobody(t *testing.T) {
	w := newWorld(t)
	victim := w.pod("victim", "u1", "10.0.0.1")
	thief := w.pod("thief", "u0", "10.0.0.2")
	must(t, link.AddAddr(thief.ns, "eth0", netip.MustParsePrefix("10.0.0.1/24")))
	w.api.Put(victim.running())
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, "snapshot")
	time.Sleep(2 * w.conf.RepairEvery) // nothing must happen in this time
	z.Quiet(t)
	if status, text := func() (int, string) { w.api.Put(victim.Object); return victim.event() }(); status != http.StatusOK {
		t.Errorf("event: %d %s", status, text)
	}
	z.Expect(t, victim.added())
}

// CN-16.
func TestUninstallLeavesNoRule(t *testing.T) {
	w := newWorld(t)
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.running())
	w.start()
	w.proxy(fakeztunnel.Yes).Expect(t, p.added(), "snapshot")
	p.annotated(mesh.RedirectionEnabled)
	w.stop()
	w.uninstall()
	names, err := nft.Names(nil)
	must(t, err)
	if p.tables() != "" || len(names) > 0 {
		t.Errorf("CN-16: left in the pod %q, on the node %q", p.tables(), names)
	}
}
