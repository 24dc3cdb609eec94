package node_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/cniplugin"
)

// CN-16: an agent whose daemon set is gone leaves the node as it was; one that will be followed by another leaves everything in
// place, and so does one that cannot know.
func TestAgentThatEnds(t *testing.T) {
	const path = "/apis/apps/v1/namespaces/istio-system/daemonsets/istio-cni-node"
	for name, c := range map[string]struct {
		answer string
		status int
		stays  bool
	}{
		"daemon set gone":            {status: http.StatusNotFound},
		"daemon set being deleted":   {status: http.StatusOK, answer: `{"metadata":{"name":"istio-cni-node","deletionTimestamp":"2026-01-01T00:00:00Z"}}`},
		"an upgrade":                 {status: http.StatusOK, answer: `{"metadata":{"name":"istio-cni-node"}}`, stays: true},
		"API server in trouble":      {status: http.StatusInternalServerError, stays: true},
		"no right to know":           {status: http.StatusForbidden, stays: true},
		"an answer about nothing":    {status: http.StatusOK, answer: `{}`, stays: true},
		"an answer that is none":     {status: http.StatusOK, answer: `<html>`, stays: true},
		"somebody else's daemon set": {status: http.StatusOK, answer: `{"metadata":{"name":"other","deletionTimestamp":"x"}}`, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.conf.DaemonSet = "istio-cni-node"
			w.api.Hook(func(rw http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != path {
					return false
				}
				rw.WriteHeader(c.status)
				_, _ = rw.Write([]byte(c.answer))
				return true
			})
			list := filepath.Join(w.conf.ConfDir, "10-net.conflist")
			before, err := os.ReadFile(list)
			must(t, err)
			p := w.pod("web", "u1", "10.0.0.1")
			w.api.Put(p.running())
			w.start()
			z := w.proxy(fakeztunnel.Yes)
			z.Expect(t, p.added(), "snapshot")
			p.annotated(mesh.RedirectionEnabled)
			wait(t, "the plugin", func() bool {
				b, err := os.ReadFile(list)
				return err == nil && strings.Contains(string(b), "istio-cni")
			})
			w.stop()
			after, err := os.ReadFile(list)
			must(t, err)
			_, plugin := os.Stat(filepath.Join(w.conf.BinDir, "istio-cni"))
			names, err := nft.Names(nil)
			must(t, err)
			for _, socket := range []string{w.conf.ZDSSocket, w.conf.EventSocket, filepath.Join(filepath.Dir(w.conf.EventSocket), cniplugin.LogSocket)} {
				if _, err := os.Stat(socket); (err == nil) != c.stays {
					t.Errorf("CN-16: socket %s: %v, want it to stay: %t", socket, err, c.stays)
				}
			}
			if c.stays {
				if string(after) == string(before) || plugin != nil || p.tables() != everything || !p.probed() || p.annotation() != mesh.RedirectionEnabled {
					t.Errorf("something is gone: configuration %s, plugin %v, rules %q, annotation %q", after, plugin, p.tables(), p.annotation())
				}
				return
			}
			if string(after) != string(before) || plugin == nil || p.tables() != "" || len(names) > 0 || p.annotation() != "" {
				t.Errorf("CN-16: left over: configuration %s, plugin %v, rules %q, tables %q, annotation %q", after, plugin, p.tables(), names, p.annotation())
			}
		})
	}
}
