package node_test

import (
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/mesh"
)

// CN-08: who is in no pod of a node proxy gets no descriptor, and the real one goes on.
func TestFakeProxyGetsNothing(t *testing.T) {
	w := newWorld(t)
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.running())
	account := w.pod("account", "u2", "10.0.0.2") // the name of the account is not enough
	account.Spec.ServiceAccountName = "ztunnel"
	account.Metadata.Namespace = "plain"
	w.api.Put(account.running())
	system := w.pod("other", "u3", "10.0.0.3") // nor is the namespace
	system.Metadata.Namespace = "istio-system"
	w.api.Put(system.running())
	ended := w.pod("ended", "u4", "10.0.0.4")
	ended.Metadata.Namespace, ended.Spec.ServiceAccountName = "istio-system", "ztunnel"
	o := ended.running()
	o.Status.Phase = "Failed"
	w.api.Put(o)
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, p.added(), "snapshot")
	p.annotated(mesh.RedirectionEnabled)

	fakes := map[string]*fakeztunnel.Ztunnel{}
	for name, ns := range map[string]*netns.Namespace{"node": nil, "pod of the mesh": p.ns, "account elsewhere": account.ns, "other account": system.ns, "pod that ended": ended.ns} {
		fakes[name] = fakeztunnel.ConnectFrom(t, ns, w.conf.ZDSSocket, fakeztunnel.Yes)
	}
	second := w.pod("second", "u5", "10.0.0.5")
	w.api.Put(second.Object)
	if status, text := second.event(); status != http.StatusOK {
		t.Errorf("CN-08: while strangers wait a pod does not start: %d %s", status, text)
	}
	z.Expect(t, second.added())
	for name, f := range fakes {
		select {
		case <-f.Ended:
		case <-time.After(10 * time.Second):
			t.Errorf("CN-08: %s: the connection stays", name)
		}
		f.Quiet(t)
	}
	w.api.Delete(second.Object)
	z.Expect(t, "del u5")
	z.Quiet(t)
}

// CN-08: a pod that takes the proxy's address is not taken for it; whether the proxy is, is not known then either.
func TestStolenAddressIsNoProxy(t *testing.T) {
	w := newWorld(t)
	p, thief := w.pod("web", "u1", "10.0.0.1"), w.pod("thief", "u2", "10.0.0.2")
	w.api.Put(p.running())
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, p.added(), "snapshot")
	must(t, link.AddAddr(thief.ns, "eth0", netip.MustParsePrefix("10.0.0.200/24")))
	f := fakeztunnel.ConnectFrom(t, thief.ns, w.conf.ZDSSocket, fakeztunnel.Yes)
	select {
	case <-f.Ended:
	case <-time.After(10 * time.Second):
		t.Error("CN-08: the connection stays")
	}
	f.Quiet(t)
	second := w.pod("second", "u5", "10.0.0.5")
	w.api.Put(second.Object)
	if status, text := second.event(); status != http.StatusOK {
		t.Errorf("event: %d %s", status, text)
	}
	z.Expect(t, second.added())
}

func TestProxyThatIsQuickerThanTheWordOfIt(t *testing.T) {
	w := newWorld(t)
	w.api.Delete(w.zt.Object)
	w.start()
	wait(t, "readiness", func() bool { status, _ := page(t, w.conf.Health, "/readyz"); return status == http.StatusOK })
	z := w.proxy(fakeztunnel.Yes)
	w.api.Put(w.zt.Object) // no address yet
	z.Quiet(t)
	w.api.Put(w.zt.running())
	z.Expect(t, "snapshot")
}

// In an upgrade two proxies run: new pods go to the newer, ends to both, and the older takes over when the newer goes.
func TestUpgradeOfTheProxy(t *testing.T) {
	w := newWorld(t)
	newer := w.pod("newer", "zt2", "10.0.0.201")
	newer.Metadata.Namespace, newer.Spec.ServiceAccountName = "istio-system", "ztunnel"
	w.api.Put(newer.running())
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.running())
	w.start()
	old := w.proxy(fakeztunnel.Yes)
	old.Expect(t, p.added(), "snapshot")
	p.annotated(mesh.RedirectionEnabled)
	z := fakeztunnel.ConnectFrom(t, newer.ns, w.conf.ZDSSocket, fakeztunnel.Yes)
	z.Expect(t, p.added(), "snapshot")
	second := w.pod("second", "u5", "10.0.0.5")
	w.api.Put(second.Object)
	if status, text := second.event(); status != http.StatusOK {
		t.Fatalf("event: %d %s", status, text)
	}
	z.Expect(t, second.added())
	old.Quiet(t)
	w.api.Delete(p.running())
	z.Expect(t, "del u1")
	old.Expect(t, "del u1")
	z.Close()
	old.Expect(t, second.added())
	w.api.Delete(second.Object)
	old.Expect(t, "del u5")
	old.Quiet(t)
}

// A pod whose namespace the next agent does not find stays with its proxy.
func TestPodWhoseNamespaceIsNotFoundIsKept(t *testing.T) {
	w := newWorld(t)
	p, gone := w.pod("web", "u1", "10.0.0.1"), w.pod("gone", "u2", "10.0.0.2")
	for _, pod := range []*testPod{p, gone} {
		o := pod.running()
		o.Metadata.Annotations = map[string]string{mesh.AnnotationRedirection: mesh.RedirectionEnabled}
		w.api.Put(o)
		must(t, netns.Unmount(filepath.Join(w.conf.NetnsDir, pod.Metadata.UID)))
	}
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	kept := map[string]bool{<-z.Heard: true, <-z.Heard: true}
	if !kept["keep u1"] || !kept["keep u2"] {
		t.Fatalf("proxy was told %v", kept)
	}
	z.Expect(t, "snapshot")
	w.api.Delete(gone.Object)
	z.Expect(t, "del u2")
	p.mount("u1-again")
	z.Expect(t, p.added())
	wait(t, "rules", p.captured)
	w.api.Delete(p.Object)
	z.Expect(t, "del u1")
	z.Quiet(t)
}
