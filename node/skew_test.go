package node_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/mesh"
)

// An agent is replaced before the plugin on its host is, and the plugin may be back to an older one after it: what any version has
// said, and what a later one may add, is understood.
func TestPluginOfAnotherVersion(t *testing.T) {
	w := newWorld(t)
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, "snapshot")
	for i, c := range []struct{ name, event string }{
		{"Istio's, which does not know the pod's UID", `{"Netns":"NETNS","PodName":"p0","PodNamespace":"default","IPs":[{"Interface":2,"Address":{"IP":"10.0.0.1","Mask":"/////w=="},"Gateway":"10.0.0.254"}]}`},
		{"ours of the first version", `{"Netns":"NETNS","PodName":"p1","PodNamespace":"default","PodUID":"u1","IPs":[{"Interface":0,"Address":{"IP":"10.0.0.2","Mask":"////AA=="},"Gateway":"10.0.0.254"}]}`},
		{"a later one, that says more", `{"Version":7,"Netns":"NETNS","PodName":"p2","PodNamespace":"default","PodUID":"u2","IPs":[{"Interface":0,"Address":{"IP":"10.0.0.3","Mask":"////AA==","Zone":""},"Network":"n"}],"Sandbox":{"ID":"x"}}`},
		{"without addresses", `{"Netns":"NETNS","PodName":"p3","PodNamespace":"default","PodUID":"u3"}`},
	} {
		p := w.pod(fmt.Sprintf("p%d", i), fmt.Sprintf("u%d", i), fmt.Sprintf("10.0.0.%d", i+1))
		w.api.Put(p.Object)
		if status, text := w.post([]byte(strings.Replace(c.event, "NETNS", filepath.Join(w.conf.NetnsDir, p.Metadata.UID), 1))); status != http.StatusOK {
			t.Errorf("%s: %d %s", c.name, status, text)
			continue
		}
		z.Expect(t, p.added())
		if !p.captured() {
			t.Errorf("%s: not captured", c.name)
		}
		p.annotated(mesh.RedirectionEnabled)
	}
}
